"""k-means on the token features (the second baseline of table 5)."""

import warnings

import torch
from torch import Tensor

from prunesid.methods.features.prunesid.groupings import GroupingContext, register


@register("kmeans", random=True)
def kmeans(context: GroupingContext) -> Tensor:
    """scikit-learn's k-means (Lloyd, one k-means++ start) on the raw features of each image.

    Clusters have no counterpart of |V|, and the paper names none; the score stays what `score`
    says, by default the PSCA score, max_j |V_ij|, so that the ablation changes the groups and
    nothing else. Images with fewer distinct tokens than K get fewer groups.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    rows = []
    # Threads add up partial sums of the centers in any order; one thread makes the groups definite.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for image, count in enumerate(context.num_groups):
            tokens = context.features[image].detach().double().cpu().numpy()
            seed = context.draws.integer(image, "grouping")
            model = KMeans(n_clusters=count, n_init=1, random_state=seed)
            rows.append(torch.from_numpy(model.fit_predict(tokens)).long())
    return torch.stack(rows).to(context.features.device)
