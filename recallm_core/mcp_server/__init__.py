"""A server of the Model Context Protocol: cited answers, quotes and checks for any agent."""
