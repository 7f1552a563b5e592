"""What the metadata service tells an instance of itself, out of moto's record of it.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html has the categories; tags
are off, as EC2's default is. Knows moto's records, no HTTP.
"""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

from moto.core.utils import utcnow

from ..machines.metadata import Identity


def identity(instance: Any) -> Identity:
    """The texts below ``latest/``; whoever calls holds the records' lock."""
    key = instance.ec2_backend.key_pairs.get(instance.key_name)
    end = instance.interruption
    texts = {
        "ami-id": instance.image_id,
        "instance-id": instance.id,
        "instance-life-cycle": "spot" if instance.lifecycle == "spot" else "on-demand",
        "instance-type": instance.instance_type,
        "local-hostname": instance.private_dns_name,
        "local-ipv4": instance.private_address,
        "mac": instance.nics[0].mac_address,
        "placement/availability-zone": instance.availability_zone,
        "placement/region": instance.region_name,
        "public-hostname": instance.public_dns_name,
        "public-ipv4": instance.public_ip,
        "public-keys/0/openssh-key": key and key.public_key.strip(),
        "spot/instance-action": end and json.dumps({"action": "terminate", "time": end}),
        "spot/termination-time": end,
    }
    if instance.iam_instance_profile:
        # As the documentation's example; AWS knows nothing of it.
        role = instance.iam_instance_profile["Arn"].rpartition("/")[2]
        texts[f"iam/security-credentials/{role}"] = json.dumps(
            {
                "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIALOCALCLOUDEXAMPLE",
                "SecretAccessKey": "of-no-use-anywhere", "Token": "of-no-use-anywhere",
                "LastUpdated": f"{utcnow():%Y-%m-%dT%H:%M:%SZ}",
                "Expiration": f"{utcnow() + timedelta(hours=6):%Y-%m-%dT%H:%M:%SZ}",
            }
        )  # fmt: skip
    found = {f"meta-data/{name}": text.encode() for name, text in texts.items() if text}
    if instance.user_data:
        found["user-data"] = base64.b64decode(str(instance.user_data))
    options = instance.metadata_options
    required, enabled = options.http_tokens == "required", options.http_endpoint != "disabled"
    return Identity(texts=found, token_required=required, enabled=enabled)
