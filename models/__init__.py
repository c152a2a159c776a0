"""Two verbs, pure: `rank`, belief about candidates becomes a slate, and `learn`, examples become an optimiser step.

    types          the vocabulary and the shape legend            numpy
    spec           which fields the model sees                    numpy
    features       raw values -> table rows: the one encoder      numpy
    columns        the same, one column of the spec at a time     numpy
    rows           which rows a batch reads, and sums over them   numpy
    touched        which rows moved since the last version        numpy
    noise          every random number, a hash of its key         numpy
    slate          scores -> order, compared with greedy          numpy
    budget         the lambda that keeps exploration to a share   pure arithmetic
    metrics        log loss, AUC, PCOC                            numpy

    networks/      the click model and its gate                   torch
    beliefs/       what methods learn beside the click model      torch
    exploration/   one published method a file                    torch
    resampled      what the bootstrap's methods have in common    torch
    bonus          exploration that is added to the prediction    torch
    beta           Beta numbers without a loop                    torch
    noise_torch    noise on a device: the same bits               torch
    registry       methods by name, strategies                    torch
    policy         network + parameters + strategy                torch
    export         a strategy's ranking graph as ONNX             torch

    learner        parameters + optimiser, and each belief's      torch
    memory         one belief as it is learned                    torch
    optimizers     gradients become a step                        torch
    adam           Adam of dense gradients                        torch
    gradients      a batch's, as the sum of its parts             torch
    peers          learners that take every step together         torch
    division       each of them moves a part of the tables        torch
    denormals      numbers that are too small to be quick         torch

    evaluation/    simulated worlds and replay                    numpy, torch

No I/O, no clock, no ambient randomness. The scorer imports the numpy half alone.
"""
