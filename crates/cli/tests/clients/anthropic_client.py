"""An unchanged anthropic, direct and on Vertex AI: messages whole and in parts, tools, tokens, and what is not allowed. Prints a line
for each."""

import sys

import anthropic

base_url, model, other = sys.argv[1:]
messages = [{"role": "user", "content": "What is the answer?"}]
weather = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
search = {"type": "web_search_20250305", "name": "web_search"}

for kind, client in [
    ("direct", anthropic.Anthropic(base_url=base_url, api_key="unused", max_retries=0)),
    (
        "vertex",
        anthropic.AnthropicVertex(
            base_url=f"{base_url}/v1", region="global", project_id="p", access_token="unused", max_retries=0
        ),
    ),
]:
    answer = client.messages.create(model=model, max_tokens=99, messages=messages)
    print(f"{kind} whole:", answer.content[0].text, answer.usage.input_tokens, answer.usage.output_tokens, flush=True)
    with client.messages.stream(model=model, max_tokens=99, messages=messages) as parts:
        text = "".join(parts.text_stream)
        print(f"{kind} parts:", text, parts.get_final_message().usage.output_tokens, flush=True)
    tools = client.messages.create(model=model, max_tokens=99, messages=messages, tools=[weather])
    print(f"{kind} tools:", tools.content[0].name, tools.content[0].input, flush=True)
    print(f"{kind} count:", client.messages.count_tokens(model=model, messages=messages).input_tokens, flush=True)
    for name, call in [
        ("other", lambda: client.messages.create(model=other, max_tokens=9, messages=messages)),
        ("search", lambda: client.messages.create(model=model, max_tokens=9, messages=messages, tools=[search])),
        ("exhausted", lambda: client.messages.create(model=f"{model}-exhausted", max_tokens=9, messages=messages)),
    ]:
        try:
            print(f"{kind} {name}: answered", call(), flush=True)
        except anthropic.APIStatusError as error:
            print(f"{kind} {name}:", type(error).__name__, error.body["error"]["message"], flush=True)
print("over", flush=True)
