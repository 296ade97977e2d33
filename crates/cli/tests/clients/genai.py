"""An unchanged google-genai: whole, in parts, with a function, and what is not allowed. Prints a line for each."""

import sys

import google.oauth2.credentials
from google import genai
from google.genai import errors, types

base_url, model, other = sys.argv[1:]
client = genai.Client(
    vertexai=True,
    project="p",
    location="global",
    credentials=google.oauth2.credentials.Credentials("unused"),
    http_options=types.HttpOptions(base_url=base_url),
)
question = "What is the answer?"


def weather(city: str) -> str:
    """The weather in a city."""
    return "fine"


answer = client.models.generate_content(model=model, contents=question)
print("whole:", answer.text, answer.usage_metadata.total_token_count, flush=True)
parts = list(client.models.generate_content_stream(model=model, contents=question))
print("parts:", len(parts), "".join(part.text for part in parts), parts[-1].usage_metadata.total_token_count, flush=True)
tools = types.GenerateContentConfig(tools=[weather])
print("tools:", client.models.generate_content(model=model, contents=question, config=tools).text, flush=True)
vector = client.models.embed_content(model="text-embedding-005", contents=question)
print("vector:", vector.embeddings[0].values, flush=True)
count = client.models.count_tokens(model=model, contents=question)
print("count:", count.total_tokens, flush=True)
search = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
for name, call in [
    ("other", lambda: client.models.generate_content(model=other, contents=question)),
    ("search", lambda: client.models.generate_content(model=model, contents=question, config=search)),
]:
    try:
        print(f"{name}: answered", call().text, flush=True)
    except errors.APIError as error:
        print(f"{name}:", error.code, error.status, error.message, flush=True)
print("over", flush=True)
