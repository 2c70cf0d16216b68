"""The router: which edit a prompt asks for. Projects use this code, and every export holds a copy of it.

The files of a copy lie side by side, so that each imports the others as siblings. They need torch, numpy and
the standard library; only `exported`, which reads files, needs safetensors and transformers too.

- `words`: the words of a text, and the sentences of it that may be the question.
- `vocabulary`: how rare a word is, and whether it reads like a name.
- `misspellings`: puts misspelled words right.
- `short_names`: writes shortened names in full.
- `second_reading`: how a prompt that reaches no edit is read once more.
- `contrasts`: words that exclude each other.
- `whether`: questions whether something is so.
- `statements`: what says something and asks for nothing.
- `tasks`: prompts that want something done with words.
- `readings`: hidden states of tokens to states of a text's words.
- `features`: the features by which two prompts are compared.
- `model`: the scope model: keys, token vectors, and the probability that two prompts ask the same.
- `pooling`: keys under the scope rule `radius`, as in the paper.
- `rules`: which of the candidates fires.
- `tuning`: small changes of an encoder's weights, with which it reads questions better.
- `text_model`: the model that reads prompts, up to some of its layers.
- `reader`: texts to readings.
- `router`: texts to routes.
- `turns`: the last user turn of a conversation, which is the query.
- `open_requests`: requests for a text about a subject; an export leaves them to the base model.
- `exported`: the router of an export, from its files.
"""
