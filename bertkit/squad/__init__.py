"""SQuAD in, answers out: reading, features, batches, spans and scores. No TensorFlow.

The way through: `reading.read_squad` -> `Dataset` -> `features.make_features` -> `Features` ->
`batches.BatchPlan` and `batches.assemble` -> arrays for a model -> its logits ->
`spans.best_answers` -> `scoring.score`.
"""
