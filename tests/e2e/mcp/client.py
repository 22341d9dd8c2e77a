"""Asks an MCP server over HTTP with the Python SDK, in each generation of the protocol, and prints what it said as JSON.

Arguments: the URL, then the calls: a tool's name and its arguments as JSON.
"""

import asyncio
import json
import sys

from mcp import Client


async def ask(mode, url, calls):
    async with Client(url, mode=mode) as client:
        tools = (await client.list_tools()).tools
        answers = []
        for name, arguments in calls:
            result = await client.call_tool(name, json.loads(arguments))
            text = "".join(block.text for block in result.content)
            answers.append({"is_error": bool(result.is_error), "text": text})
        described = {tool.name: tool.input_schema for tool in tools}
        return {"protocol": client.protocol_version, "tools": described, "answers": answers}


async def main(url, *rest):
    calls = list(zip(rest[::2], rest[1::2]))
    print(json.dumps([await ask(mode, url, calls) for mode in ("auto", "legacy")]))


asyncio.run(main(*sys.argv[1:]))
