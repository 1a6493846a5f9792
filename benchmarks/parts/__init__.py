"""What the benchmark commands share, in folders by subject; a folder imports only those above it in this list.

common, datasets, agents, qa, evaluation, mining, locomo, personamem, training, swapping.
"""

__all__: list[str] = []
