"""The page's sections on the encoder, and on the map of the archive that it gives."""

import pandas as pd

from scanloop.evaluation.maps import loss_figure, silhouette_figure, thin, triage_figure
from scanloop.report.blocks import Block, Facts, Note, Picture, Pictures, Section
from scanloop.report.material import Material
from scanloop.report.numbers import count, counted, number, percent


def encoder(material: Material) -> Section:
    """Which encoder reads the images, and how its self-supervised training went."""
    anchor, title, steps = "encoder", "How the images are read", ("pretrain", "embed")
    if "encoder" not in material:
        return Section(anchor, title, steps, "No encoder has been prepared yet.", missing="pretrain")
    facts = material.json("encoder", "encoder.json")
    method = str(facts.get("method", "none"))
    weights = (facts.get("hyperparameters") or {}).get("weights")
    trained = method != "none"
    lead = "A network turned each image into a list of numbers that describes it. " + (
        "It learned to do so from the images alone, without any label."
        if trained
        else "It was trained on other images before, and taken as it is."
    )
    embedded = material.json("embeddings", "embeddings.json")
    entries = [
        ("Network", str(facts.get("encoder", "unknown")), "with given weights" if weights else "from random weights"),
        ("Training", _method(method), f"on {counted(int(facts.get('slices') or 0), 'image')}" if trained else "here"),
        ("Numbers per image", count(embedded.get("dimension") or facts.get("dimension")), "kept as float16"),
    ]
    blocks: list[Block] = [Facts(entries)]
    loss = pd.read_csv(material.artifacts["encoder"] / "loss.csv")
    if len(loss):
        blocks.append(Pictures((_loss(loss),)))
    if weights:
        blocks.append(Note(f"Weights: {weights}.", engineer=True))
    return Section(anchor, title, steps, lead, blocks)


def triage(material: Material) -> Section:
    """The map of the archive, its clusters, and whether they mean anything."""
    anchor, title, steps = "triage", "What the archive looks like", ("triage",)
    if "triage" not in material:
        return Section(anchor, title, steps, "The images have not been sorted yet.", missing="triage")
    facts = material.json("triage", "triage.json")
    lead = str(facts.get("verdict") or "Images that look alike lie close together, before anybody says what they show.")
    dense = facts.get("method") == "dbscan"
    noise = f"{percent(facts.get('noise_share'))} of the images belong to none" if dense else ""
    entries = [
        ("Clusters", count(facts.get("k")), noise or "chosen by the silhouette on squared distances"),
        ("Agreement, ARI", number(facts.get("ari")), "1: clusters are the classes, 0: chance"),
        ("Agreement, NMI", number(facts.get("nmi")), "1: clusters tell the class, 0: nothing"),
        ("Components", count(facts.get("components")), f"keep {percent(facts.get('variance'), 0)} of the variance"),
    ]
    remark = "ARI (adjusted Rand index) and NMI (normalised mutual information) compare clusters with the known labels"
    known = facts.get("labelled")
    remark += f"; they stand on {counted(known, 'labelled image')}." if isinstance(known, int) else "."
    if (euclidean := facts.get("silhouette_euclidean")) is not None:
        remark += (
            f" At the chosen k the usual silhouette, on plain distances of a sample, is {euclidean:.2f}; below 0.25 "
            "(Kaufman and Rousseeuw 1990) read the clusters as regions of one cloud, not as kinds of images."
        )
    pictures = [_map(material)]
    silhouette = {int(k): float(value) for k, value in (facts.get("silhouette") or {}).items() if value is not None}
    if silhouette:
        pictures.append(_silhouette(silhouette, facts.get("k")))
    return Section(anchor, title, steps, lead, (Facts(entries), Pictures(pictures), Note(remark, engineer=True)))


def _method(method: str) -> str:
    return {"simclr": "SimCLR", "moco": "MoCo"}.get(method, method)


def _loss(loss: pd.DataFrame) -> Picture:
    first, last = float(loss["loss"].iloc[0]), float(loss["loss"].iloc[-1])
    return Picture.drawn(
        loss_figure(loss),
        "loss",
        f"Line chart of the training loss, from {first:.2f} to {last:.2f}.",
        "The lower the line, the better the network recognises two altered views of one image among all the others. It "
        f"went from {first:.2f} to {last:.2f}; a flat end means that longer training would gain little.",
    )


def _map(material: Material) -> Picture:
    points = material.table("triage", "clusters.parquet")
    labels = material.known_labels if "catalog" in material else {}
    points["label"] = points["slice_id"].map(dict(labels)).astype(object)
    drawn = thin(points)
    part = "" if len(drawn) == len(points) else f" A random {len(drawn):,} of {len(points):,} images are drawn."
    return Picture.drawn(
        triage_figure(drawn),
        "map",
        f"Two scatter plots of {len(drawn):,} images on two principal components: by cluster and by known label.",
        "Each point is an image; images that look alike lie close together. Left: groups that the computer finds by "
        f"itself. Right: what experts have said so far. Where both agree, few labels go a long way.{part}",
    )


def _silhouette(silhouette: dict[int, float], chosen: int | None) -> Picture:
    values = ", ".join(f"{value:.3f} for {k}" for k, value in sorted(silhouette.items()))
    return Picture.drawn(
        silhouette_figure(silhouette, chosen),
        "silhouette",
        f"Line chart of the mean silhouette on squared distances over the number of clusters: {values}.",
        "How clearly all the images fall into that many groups, by the silhouette on squared distances. It chooses "
        "among numbers of clusters; its values are as a rule larger than those of the usual silhouette, whose bounds "
        "don't hold for it.",
    )
