"""The scoring process: ranks over HTTP, takes feedback, swaps in new versions.

    schemas       the words on the wire            msgspec structs and their decoders
    problems      every error as RFC 9457
    ranking       encode, score, choose            one request against one version, no I/O
    answers       a ranking, for the caller and for the trainer
    experiments   traffic split
    ranker        the bytes of a request -> the bytes of its answer
    feedback      posted events -> the log
    outbox        served records -> the log, without making a request wait
    engines/      what runs a ranking graph        onnxruntime or torch
    loading       a version on disk, verified
    swap          the next version, as soon as there is one
    guard         admission, limits, metrics       ASGI
    status        what health and model routes say
    routes        HTTP                             openapi: its document
    app           builds it, owns every resource, runs it

Only `app` reads settings. Nothing here imports torch, except engines/torch.
"""
