"""An unchanged openai: chats whole and in parts, responses, embeddings, functions, and what is not allowed. Prints a line for each."""

import sys

import openai

base_url, model, other = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0)
messages = [{"role": "user", "content": "What is the answer?"}]
function = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}

answer = client.chat.completions.create(model=model, messages=messages)
print("whole:", answer.choices[0].message.content, answer.usage.total_tokens, flush=True)
several = client.chat.completions.create(model=model, messages=messages, n=3)
print("several:", len(several.choices), several.usage.completion_tokens, flush=True)
with client.chat.completions.create(model=model, messages=messages, stream=True) as parts:
    chunks = list(parts)
print("parts:", "".join(c.choices[0].delta.content or "" for c in chunks), {c.usage for c in chunks}, flush=True)
with client.chat.completions.create(
    model=model, messages=messages, stream=True, stream_options={"include_usage": True}
) as parts:
    print("counted:", list(parts)[-1].usage.total_tokens, flush=True)
tools = client.chat.completions.create(model=model, messages=messages, tools=[{"type": "function", "function": function}])
call = tools.choices[0].message.tool_calls[0].function
print("tools:", call.name, call.arguments, flush=True)
response = client.responses.create(model=model, input="What is the answer?")
print("response:", response.output_text, response.usage.total_tokens, flush=True)
with client.responses.create(model=model, input="What is the answer?", stream=True) as events:
    events = list(events)
print("events:", len(events), events[-1].response.output_text, flush=True)
print("completion:", client.completions.create(model=model, prompt="What is").choices[0].text, flush=True)
print("vector:", client.embeddings.create(model=model, input="x", encoding_format="float").data[0].embedding, flush=True)
for name, call in [
    ("other", lambda: client.chat.completions.create(model=other, messages=messages)),
    ("search", lambda: client.responses.create(model=model, input="x", tools=[{"type": "web_search"}])),
    ("exhausted", lambda: client.chat.completions.create(model=model + "-exhausted", messages=messages)),
    ("failing", lambda: list(client.chat.completions.create(model=model + "-failing", messages=messages, stream=True))),
]:
    try:
        print(f"{name}: answered", call(), flush=True)
    except openai.APIStatusError as error:
        print(f"{name}:", type(error).__name__, error.code, error.body["message"], flush=True)
    except openai.APIError as error:
        print(f"{name}:", type(error).__name__, error.message, flush=True)
print("over", flush=True)
