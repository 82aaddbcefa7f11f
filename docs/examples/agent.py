"""A language model that runs code to answer: docs/examples/README.md

LLM_BASE_URL is a server with OpenAI's chat completions interface, LLM_MODEL its model, LLM_API_KEY its key
if it needs one.
"""

import json
import os
import sys
from typing import Any

import httpx

from sandrun_client import SandrunClient, SandrunError

MOST_TURNS = 8
MOST_CHARACTERS = 8000  # of an output: a model's context is not endless
SYSTEM = "You answer questions. Whenever a computation helps, call run_python and read what it prints."
TOOL = {
    "type": "function",
    "function": {
        "name": "run_python",
        "description": "Run a Python program in a fresh sandbox without a network. You see what it prints.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "A whole program."}},
            "required": ["code"],
        },
    },
}


def run_python(sandrun: SandrunClient, code: str) -> str:
    """What the model gets to read; failures too, because it can mend its program."""
    try:
        result = sandrun.run(code, timeout=20, memory_mb=256)
    except SandrunError as error:
        return f"The sandbox did not run it: {error}"
    text = f"{result.stdout}{result.stderr}"
    if len(text) > MOST_CHARACTERS:
        text = text[: MOST_CHARACTERS // 2] + "\n[...]\n" + text[-MOST_CHARACTERS // 2 :]
    return f"{text}\n[{result.verdict}, exit code {result.exit_code}]"


def call(sandrun: SandrunClient, function: dict[str, Any]) -> str:
    """One call of a tool; what a model writes may be anything."""
    try:
        code = json.loads(function["arguments"])["code"]
    except (ValueError, KeyError, TypeError):
        return "Error: the arguments must be a JSON object with 'code'."
    if function.get("name") != "run_python" or not isinstance(code, str):
        return "Error: there is only run_python, and its 'code' is a string."
    return run_python(sandrun, code)


def answer(question: str, llm: httpx.Client, sandrun: SandrunClient) -> str:
    """The model's last word."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question},
    ]
    for _ in range(MOST_TURNS):
        body = {"model": os.environ.get("LLM_MODEL", "default"), "messages": messages, "tools": [TOOL]}
        reply = llm.post("chat/completions", json=body).raise_for_status().json()["choices"][0]["message"]
        messages.append(reply)
        if not reply.get("tool_calls"):
            return str(reply["content"])
        for asked in reply["tool_calls"]:
            said = call(sandrun, asked["function"])
            print(f"--- {asked['function']['arguments']}\n{said}", file=sys.stderr)
            messages.append({"role": "tool", "tool_call_id": asked["id"], "content": said})
    return f"No answer after {MOST_TURNS} turns."


def main() -> None:
    """The question is the arguments."""
    key = os.environ.get("LLM_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with (
        httpx.Client(base_url=os.environ["LLM_BASE_URL"], headers=headers, timeout=120) as llm,
        SandrunClient() as sandrun,
    ):
        print(answer(" ".join(sys.argv[1:]), llm, sandrun))


if __name__ == "__main__":
    main()
