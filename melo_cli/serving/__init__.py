"""`melo serve`: a project, or what was exported of one, behind OpenAI's API."""
