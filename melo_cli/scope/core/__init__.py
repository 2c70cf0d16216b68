"""Which edit a prompt asks for: what a project routes by, and what every export carries along.

An export holds a copy of these files, side by side, and takes the routes that the project takes. So each
imports the others as neighbours, and nothing beyond torch, numpy and the standard library; `exported` alone,
which reads files, needs safetensors and transformers.

- `words`: the words of a text, and the sentences of it that may be the question.
- `vocabulary`: how rare a word is, and whether it reads like a name.
- `readings`: from a model's hidden states to the states of a text's words.
- `features`: how well two prompts match, as numbers.
- `model`: the scope model: keys, token vectors, and the probability that two prompts ask the same.
- `pooling`: keys of the rule `radius`, as the paper makes them.
- `rules`: which of the candidates fires.
- `text_model`: a model that reads, as far as some of its layers.
- `reader`: texts to readings.
- `router`: texts to routes.
- `turns`: of a conversation the last user turn, which is what is asked.
- `exported`: the router of an export, from its files.
"""
