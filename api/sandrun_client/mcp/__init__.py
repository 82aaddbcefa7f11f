"""An MCP server before a Sandrun server: `sandrun mcp`. Needs `sandrun-client[mcp]`."""
