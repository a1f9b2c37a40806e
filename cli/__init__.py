"""The `oxcart` command: one module per command group, imported when the command is called."""
