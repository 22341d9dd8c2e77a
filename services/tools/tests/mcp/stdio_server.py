"""An MCP server on standard input and output, in the protocol's own words: the generation that begins with `initialize`.

Arguments: a folder, into which each start writes a file named by its process id.
"""

import json
import os
import sys

open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
print("ready", file=sys.stderr, flush=True)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def answer(method, params):
    if method == "initialize":
        info = {"name": "script", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        names = ["weather", "variable", "dies"]
        return {"tools": [{"name": name, "inputSchema": SCHEMA if name == "weather" else {"type": "object"}} for name in names]}
    if method == "tools/call":
        name, arguments = params["name"], params.get("arguments", {})
        if name == "dies":
            os._exit(3)
        text = f"sunny in {arguments['city']}" if name == "weather" else str(os.environ.get(arguments["name"]))
        return {"content": [{"type": "text", "text": text}]}
    return None


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = answer(message["method"], message.get("params", {}))
    reply = {"jsonrpc": "2.0", "id": message["id"]}
    if result is None:
        reply["error"] = {"code": -32601, "message": "no such method"}
    else:
        reply["result"] = result
    print(json.dumps(reply), flush=True)
