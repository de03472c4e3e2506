"""What a trained pretext network really reads: the same clips, changed in one respect at a time.

A *counterfactual* keeps the question and its answer and changes what the network may see. Where the answer suffers, the
network had looked there. See ``docs/audit.md``.
"""
