"""What speaks to Kubeflow Pipelines or Kubernetes."""
