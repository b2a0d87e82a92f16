"""One module per subcommand; its docstring is its help."""
