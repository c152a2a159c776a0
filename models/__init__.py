"""Two verbs, pure: `rank`, belief about candidates becomes a slate, and `learn`, examples become an optimiser step.

    types          the vocabulary and the shape legend            numpy
    spec           which fields the model sees                    numpy
    features       raw values -> table rows: the one encoder      numpy
    noise          every random number, a hash of its key         numpy
    slate          scores -> order, compared with greedy          numpy
    budget         the lambda that keeps exploration to a share   pure arithmetic
    metrics        log loss, AUC, PCOC, ECE, NE                   numpy
    networks/      the click model and its gate                   torch
    beliefs/       what methods learn beside the click model      torch
    exploration/   one published method a file                    torch
    registry       methods by name, strategies                    torch
    policy         network + parameters + strategy                torch
    learner        parameters + optimiser, and each belief's      torch
    export         a strategy's ranking graph as ONNX             torch
    evaluation/    simulated worlds and replay

No I/O, no clock, no ambient randomness. The scorer imports the numpy half alone.
"""
