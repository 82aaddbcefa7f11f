"""An MCP server before a Sandrun server: `sandrun mcp`. Needs the client's extra `mcp`."""
