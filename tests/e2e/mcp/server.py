"""An MCP server with the Python SDK, on standard input and output."""

from mcp.server import MCPServer

server = MCPServer("forecast")


@server.tool()
def weather(city: str) -> str:
    """Tells the weather."""
    if city == "Atlantis":
        raise ValueError("Atlantis is under water")
    return f"sunny in {city}"


server.run("stdio")
