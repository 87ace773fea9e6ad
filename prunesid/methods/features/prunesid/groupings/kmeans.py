"""Grouping by k-means on the token features (the second baseline of table 5)."""

import warnings

from prunesid.core.delayed import Tensor, torch
from prunesid.methods.features.prunesid.groupings import GroupingContext, register


@register("kmeans", random=True)
def kmeans(context: GroupingContext) -> Tensor:
    """The groups by scikit-learn's k-means (Lloyd, one k-means++ start) on an image's raw features.

    Clusters have no counterpart of |V|, and the paper names none. So the score stays the one that
    `score` names, by default the PSCA score max_j |V_ij|, and the ablation changes only the groups.
    Images with fewer distinct tokens than K get fewer groups.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    rows = []
    # Threads add partial sums of the centers in any order; with one thread the groups are fixed.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for image, count in enumerate(context.num_groups):
            tokens = context.features[image].detach().double().cpu().numpy()
            seed = context.draws.integer(image, "grouping")
            model = KMeans(n_clusters=count, n_init=1, random_state=seed)
            rows.append(torch.from_numpy(model.fit_predict(tokens)).long())
    return torch.stack(rows).to(context.features.device)
