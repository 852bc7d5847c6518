"""What the embeddings look like before anybody labels: projection, clusters, agreement with the labels at hand."""
