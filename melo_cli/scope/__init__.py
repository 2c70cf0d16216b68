"""What an edit answers for: how prompts are read, what is learnt of scope, and the route of a prompt."""
