"""What the faces that look and click share: pictures of clusters, one poller, operations that outlive a view."""
