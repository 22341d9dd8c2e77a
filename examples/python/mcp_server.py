"""An MCP server as a tool, with the official SDK (pip install "mcp>=2"). The stack starts it; name it in the manifest:

tools:
  - { id: units, type: remote::mcp, config: { command: python, args: [examples/python/mcp_server.py] } }
"""

from mcp.server import MCPServer

server = MCPServer("units")


@server.tool()
def celsius(fahrenheit: float) -> str:
    """Converts a temperature from degrees Fahrenheit to degrees Celsius."""
    return f"{(fahrenheit - 32) * 5 / 9:.1f} degrees Celsius"


server.run("stdio")
