"""Which edit a prompt asks for: what a project routes by, and what every export carries along.

Nothing in this folder imports anything beyond torch, numpy and the standard library, so that an export that
holds a copy of it takes the routes that the project takes.

- `words`: the words of a text, and the sentences of it that may be the question.
- `vocabulary`: how rare a word is, and whether it reads like a name.
- `readings`: from a model's hidden states to the states of a text's words.
- `features`: how well two prompts match, as numbers.
- `model`: the scope model: keys, token vectors, and the probability that two prompts ask the same.
- `pooling`: keys of the rule `radius`, as the paper makes them.
- `rules`: which of the candidates fires.
"""
