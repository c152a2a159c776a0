"""Beliefs: what exploration methods learn beside the click model. One kind of uncertainty a file.

    belief       the protocol, and how a belief's state joins the parameters
    members      K click models as one network
    ensemble     members that differ in where they began
    bootstrap    members that differ in their examples, real and fake
    history      the newest examples, to be learned from again
    heads        K last layers on the click model's trunk
    covariance   how much was learned along each parameter's gradient
    sparse_gp    a Gaussian process on the last hidden layer
    density      a mixture of normals over click rates
    logistic     Bayesian logistic regression on the features
    counts       impressions and clicks of items
    residuals    what the click model did not foresee of each item
    groups       the same of items that belong together
    rows         examples as the table rows that they read

A belief knows how sure the model is, an exploration method (`models.exploration`) what to show because of it: several
methods may share one belief.
"""
