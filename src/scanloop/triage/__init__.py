"""What the embeddings look like before anybody labels: projection, clusters, neighbours, agreement with the labels."""

import logging

logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells every user which processor it was loaded for
