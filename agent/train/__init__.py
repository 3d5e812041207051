"""Train: learns better parameters from feedback, in its own process, and only ever proposes them.

Standard library only, apart from the types in :mod:`agent.train.parameters`: the worker must stay small on a gateway.
"""
