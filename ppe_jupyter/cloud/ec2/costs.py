"""Cost Explorer: what AWS has billed. A call costs one cent (aws.amazon.com/aws-cost-management/pricing)."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from .session import Session, translated

if TYPE_CHECKING:
    from mypy_boto3_ce.client import CostExplorerClient


class Costs(Session):
    """Verbs on bills."""

    @translated
    def billed(self, tag: str, *, start: date, end: date) -> dict[str, float]:
        """USD billed from ``start`` to before ``end`` by the value of a tag; "" is what has not that tag.

        A tag counts from its activation as a cost allocation tag on; before that all is "".
        """
        ce: CostExplorerClient = self._client("ce", region="us-east-1")
        wanted = {
            "TimePeriod": {"Start": start.isoformat(), "End": end.isoformat()},
            "Granularity": "MONTHLY",
            "Metrics": ["UnblendedCost"],
            "GroupBy": [{"Type": "TAG", "Key": tag}],
        }
        total: dict[str, float] = {}
        while True:
            answer = ce.get_cost_and_usage(**wanted)  # type: ignore[arg-type]
            for month in answer["ResultsByTime"]:
                for group in month["Groups"]:
                    value = group["Keys"][0].partition("$")[2]
                    total[value] = total.get(value, 0.0) + float(group["Metrics"]["UnblendedCost"]["Amount"])
            if not answer.get("NextPageToken"):
                return total
            wanted["NextPageToken"] = answer["NextPageToken"]
