"""The page's sections on the encoder and on the map of the archive that it gives."""

import pandas as pd
from markupsafe import Markup

from scanloop.artifacts import read_table
from scanloop.evaluation.drawing import to_svg
from scanloop.evaluation.maps import loss_figure, silhouette_figure, thin, triage_figure
from scanloop.report.blocks import Block, Facts, Note, Picture, Section
from scanloop.report.material import Material
from scanloop.report.numbers import count, counted, number, percent


def encoder(material: Material) -> Section:
    """Which encoder reads the images, and how its self-supervised training went."""
    anchor, title, steps = "encoder", "How the images are read", ("pretrain", "embed")
    if "encoder" not in material:
        return Section(anchor, title, steps, "No encoder has been prepared yet.", missing="pretrain")
    facts = material.json("encoder", "encoder.json")
    loss = pd.read_csv(material.artifacts["encoder"] / "loss.csv")
    name, method = str(facts.get("encoder", "encoder")), str(facts.get("method", "none"))
    weights = facts.get("hyperparameters", {}).get("weights")
    embedded = material.json("embeddings", "embeddings.json")
    lead = (
        "A network turned each image into a list of numbers that describes it. It learned to do so from the images alone, "
        "without any label." if method != "none" else
        "A network that was trained on everyday photographs turned each image into a list of numbers that describes it."
    )  # fmt: skip
    entries = [
        ("Network", name, f"started from {weights}" if weights else "started from random weights"),
        (
            "Training",
            method if method != "none" else "none",
            f"on {counted(int(facts.get('slices') or 0), 'image')} without labels"
            if method != "none"
            else "weights taken as they are",
        ),
        ("Numbers per image", count(embedded.get("dimension") or facts.get("dimension")), "float16"),
    ]
    blocks: list[Block] = [Facts(entries)]
    if len(loss):
        first, last = (float(loss["loss"].iloc[row]) for row in (0, -1))
        blocks.append(Picture(
            Markup(to_svg(loss_figure(loss), "loss")),  # noqa: S704  drawn by us, text escaped
            f"Line chart of the training loss, from {first:.2f} to {last:.2f}.",
            f"The lower the line, the better the network recognises two altered views of one image among all others. "
            f"It went from {first:.2f} to {last:.2f}; a flat end means that more training would gain little.",
        ))  # fmt: skip
    return Section(anchor, title, steps, lead, blocks)


def triage(material: Material) -> Section:
    """The map of the archive, its clusters, and whether they mean anything."""
    anchor, title, steps = "triage", "What the archive looks like", ("triage",)
    if "triage" not in material:
        return Section(anchor, title, steps, "The images have not been sorted yet.", missing="triage")
    facts = material.json("triage", "triage.json")
    silhouette = {int(k): float(value) for k, value in (facts.get("silhouette") or {}).items() if value is not None}
    chosen = facts.get("k")
    lead = str(facts.get("verdict") or "Images that look alike lie close together, before anybody says what they show.")
    entries = [
        ("Clusters", count(chosen), "chosen by the silhouette"),
        ("Agreement, ARI", number(facts.get("ari")), "1: clusters are the classes, 0: chance"),
        ("Agreement, NMI", number(facts.get("nmi")), "1: clusters tell the class, 0: nothing"),
        ("Components", count(facts.get("components")), f"keep {percent(facts.get('variance'), 0)} of the variance"),
    ]
    blocks: list[Block] = [Facts(entries), _map(material)]
    if silhouette:
        blocks.append(_silhouette(silhouette, int(chosen) if chosen is not None else None))
    blocks.append(Note(
        "ARI (adjusted Rand index) and NMI (normalised mutual information) compare clusters with the labels known so far; "
        f"they stand on {counted(int(facts['labelled']), 'labelled image')}." if isinstance(facts.get("labelled"), int) else
        "ARI (adjusted Rand index) and NMI (normalised mutual information) compare clusters with the labels known so far.",
        engineer=True,
    ))  # fmt: skip
    return Section(anchor, title, steps, lead, blocks)


def _map(material: Material) -> Picture:
    points = read_table(material.artifacts["triage"], "clusters.parquet")
    points["label"] = points["slice_id"].map(dict(material.known_labels)) if "catalog" in material else None
    drawn = thin(points)
    part = "" if len(drawn) == len(points) else f" A random {len(drawn):,} of {len(points):,} images are drawn."
    return Picture(
        Markup(to_svg(triage_figure(drawn), "map")),  # noqa: S704  drawn by us, text escaped
        f"Two scatter plots of {len(drawn):,} images on their first two principal components, by cluster and by known label.",
        "Each point is an image; images that look alike lie close together. Left: the groups that a computer finds by itself. "
        f"Right: what experts have said so far. Where both agree, few labels go a long way.{part}",
    )


def _silhouette(silhouette: dict[int, float], chosen: int | None) -> Picture:
    values = ", ".join(f"{value:.3f} for {k}" for k, value in sorted(silhouette.items()))
    return Picture(
        Markup(to_svg(silhouette_figure(silhouette, chosen), "silhouette")),  # noqa: S704  drawn by us, text escaped
        f"Line chart of the mean silhouette over the number of clusters: {values}.",
        "How clearly the images fall into this many groups. Below 0.25 the borders are blurred: read the clusters as regions "
        "of one cloud, not as kinds of images.",
        half=True,
    )
