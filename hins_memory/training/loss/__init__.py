"""The contrastive loss and how its gradients are computed in little memory."""
