"""What instances cost, as AWS says: the price list's API, and the spot market's prices now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from .session import Session, translated

# The price list has an endpoint in few regions only, and the prices of all in each
# (https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/price-list-api.html).
PRICE_LIST_REGION = "us-east-1"
PRODUCT = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}


class Prices(Session):
    """Verbs on prices, USD per hour."""

    @translated
    def on_demand_prices(self, instance_type: str | None = None) -> dict[str, float]:
        """The region's on-demand Linux prices by type: of one type, in one call, or of all, in some ten."""
        wanted = {**PRODUCT, "regionCode": self.region}
        if instance_type is not None:
            wanted["instanceType"] = instance_type
        pages = (
            self._client("pricing", region=PRICE_LIST_REGION)
            .get_paginator("get_products")
            .paginate(
                ServiceCode="AmazonEC2",
                Filters=[
                    {"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()
                ],
            )
        )
        return dict(
            priced
            for page in pages
            for product in page["PriceList"]
            for priced in _priced(json.loads(product))
        )

    @translated
    def spot_prices(self, instance_types: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        """The spot prices now of those types, or of all, by type and zone; Linux."""
        # From now on: of what changed before that, EC2 gives the last price of each (DescribeSpotPriceHistory).
        pages = self._ec2.get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=instance_types,  # type: ignore[arg-type]
            ProductDescriptions=["Linux/UNIX"],
            StartTime=datetime.now(timezone.utc),
        )
        found: dict[str, dict[str, float]] = {}
        for page in pages:
            for point in page["SpotPriceHistory"]:
                zones = found.setdefault(point["InstanceType"], {})
                zones.setdefault(point["AvailabilityZone"], float(point["SpotPrice"]))
        return found


def _priced(product: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Type and price of a product of the list; nothing for one that is not sold by the hour."""
    terms: Iterable[Any] = product["terms"].get("OnDemand", {}).values()
    for term in terms:
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0))
            if dimension["unit"] == "Hrs" and usd > 0:
                yield product["product"]["attributes"]["instanceType"], usd
