"""What a merge keeps beside its weights, and what changes a model's computation without being any of its weights.

`surgery`: heads that mend representations. `smile`: low-rank experts that are chosen token by token. `files`: how they
are kept. `making`: how a recipe has them made. `attached`: how a model in memory computes with them.
"""
