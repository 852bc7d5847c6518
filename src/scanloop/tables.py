"""Schemas of the tables in artifacts, by file name."""

from collections.abc import Mapping

import pyarrow as pa

_string, _int, _float = pa.string(), pa.int64(), pa.float64()

TABLES: Mapping[str, pa.Schema] = {
    "sources.parquet": pa.schema([("slice_id", _string), ("uri", _string), ("given_label", _string), ("bytes", _int)]),
    "manifest": pa.schema([
        ("slice_id", _string), ("sha256", _string), ("frame", _int), ("phash", _string), ("patient_id", _string),
        ("study_id", _string), ("site", _string), ("group_id", _string), ("modality", _string), ("height", _int),
        ("width", _int), ("bits", _int), ("label", _string), ("label_source", _string), ("split", _string),
        ("shard", _string), ("offset", _int), ("length", _int),
    ]),
    "quarantine.parquet": pa.schema([("uri", _string), ("reason", _string), ("detail", _string)]),
    "hidden_labels.parquet": pa.schema([("slice_id", _string), ("label", _string)]),
    "attributes.parquet": pa.schema([("slice_id", _string), ("name", _string), ("value", _string)]),
    "seen.parquet": pa.schema([("file", _string), ("version", _string)]),
    "index.parquet": pa.schema([("slice_id", _string), ("shard", _string), ("row", _int)]),
    "clusters.parquet": pa.schema([("slice_id", _string), ("cluster", _int), ("x", _float), ("y", _float)]),
    "pushed_out.parquet": pa.schema([
        ("slice_id", _string), ("near", _string), ("cosine", _float), ("reason", _string),
    ]),
    "queue.parquet": pa.schema([
        ("slice_id", _string), ("rank", _int), ("uncertainty", _float), ("diversity", _float), ("price", _float),
        ("reason", _string), ("purpose", _string), ("probabilities", pa.list_(_float)),
        ("neighbours", pa.list_(_string)), ("neighbour_labels", pa.list_(_string)),
    ]),
    "labels.parquet": pa.schema([
        ("slice_id", _string), ("label", _string), ("readers", _int), ("agreement", _float),
        ("adjudicated", pa.bool_()), ("as_of", _string), ("purpose", _string),
    ]),
    "label_errors.parquet": pa.schema([
        ("slice_id", _string), ("split", _string), ("given", _string), ("model", _string),
        ("probability_of_given", _float),
    ]),
    "quality.parquet": pa.schema([
        ("slice_id", _string), ("consensus", _string), ("quality", _float), ("readings", _int), ("agreement", _float),
        ("score", _float), ("adjudicated", pa.bool_()), ("read_again", pa.bool_()),
    ]),
    "pseudo_labels.parquet": pa.schema([
        ("slice_id", _string), ("uri", _string), ("probability", _float), ("confidence", _float), ("label", _string),
        ("knn_label", _string), ("knn_share", _float), ("anomaly", _float), ("promoted", pa.bool_()),
        ("reason", _string), ("wave", _int), ("soft", pa.list_(_float)), ("weight", _float),
    ]),
    "out_of_fold.parquet": pa.schema([
        ("slice_id", _string), ("group_id", _string), ("repeat", _int), ("fold", _int), ("label", _string),
        ("logits", pa.list_(_float)),
    ]),
    "learnt.parquet": pa.schema([
        ("slice_id", _string), ("group_id", _string), ("source", _string), ("label_source", _string),
    ]),
    "predictions.parquet": pa.schema([
        ("slice_id", _string), ("uri", _string), ("split", _string), ("label", _string), ("given_label", _string),
        ("probability", _float), ("confidence", _float), ("probabilities", pa.list_(_float)), ("promoted", pa.bool_()),
        ("reason", _string),
    ]),
    "confidence.parquet": pa.schema([
        ("slice_id", _string), ("side", _string), ("confidence", _float), ("positive", pa.bool_()),
    ]),
    "map.parquet": pa.schema([("slice_id", _string), ("features", _string), ("x", _float), ("y", _float)]),
}  # fmt: skip
"""Schema of every table, by file name. Unlabelled is a null label; `phash` of a blank slice is null; `bytes` of a
source are those read for it.

`split` is "train", "validation" or "test" in the manifest; the pool is the train rows without a label. `probability` is
that of the positive class, `probabilities` follows the classes in `catalog.json`, `label` is the predicted class, and
`given_label` what an expert said. In predictions `split` is also "cross_validation", where the row was predicted by
models that never saw its group, and "pool". In confidences `side` is "reference" or "pool", `positive` whether the
predicted class is the positive one. In `learnt.parquet` `source` is "labelled" or "pseudo_labelled", and
`label_source` of what is labelled "given", "bought", or "reread" where a reading took another given label's place.
`purpose` of a queued or bought label is "train", where the image was chosen, "audit", where it was drawn at random to
judge the machine, or "control", where it was drawn at random beside those that were chosen. In a queue `probabilities`
are the head's, by class, `neighbours` the nearest labelled images, nearest first, and `neighbour_labels` theirs.
`soft` is what retraining learns a pool image as, by class, and `weight` how much that counts against a given label;
both are null for what was not drawn to be learnt from.
In samples of what was served `sha256` is that of the bytes sent, under a key where there is one, and `positive` whether
the most probable class is the positive one; what could not be read has a reason in `abstained` and no label.
On the map `features` is "frozen" or "fine-tuned".
"""

SAMPLES = pa.schema([
    ("sha256", _string), ("time", pa.timestamp("us", tz="UTC")), ("label", _string), ("confidence", _float),
    ("positive", pa.bool_()), ("probabilities", pa.list_(_float)), ("abstained", _string), ("strangeness", _float),
    ("embedding", pa.list_(pa.float16())), ("model_digest", _string), ("operating_point", _string),
])  # fmt: skip
"""Schema of what `python -m serving --sample-to` leaves: files of a server, no artifact of a run."""
