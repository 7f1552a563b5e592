"""EC2 as the local cloud serves it: moto's response class with the actions that it lacks or answers too kindly.

What holds for every action is here: dry runs, limits of filters and tags, pages, instances that are not seen
yet, and errors in EC2's own form. What the classes of ec2_*.py do not define is moto's. Knows moto's request
parsing and records, no containers.
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import DryRunClientError, EC2ClientError, InvalidInstanceIdError, TagLimitExceeded

from ..machines.reconciler import Action
from .describe import DescribeActions
from .groups import GroupActions
from .images import ImageActions
from .launch import CAPACITY, LaunchActions
from .volumes import VolumeActions

STATUS = {CAPACITY: 500, "InsufficientHostCapacity": 500, "DryRunOperation": 412}
CHECKED_WHEN_DRY = ("RunInstances",)  # the others end at the permission, as EC2 documents of DryRun
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html, .../Using_Tags.html
MAX_FILTERS, MAX_FILTER_VALUES = 50, 200
MAX_TAGS, MAX_TAGGED = 50, 1000
MAX_KEY, MAX_VALUE = 128, 256


class LocalCloudResponse(LaunchActions, GroupActions, DescribeActions, VolumeActions, ImageActions):
    """One request to EC2."""

    def call_action(self) -> Any:
        """The answer, an error that moto does not know how to tell included."""
        try:
            self._check()
            status, headers, body = super().call_action()
        except NotImplementedError as exc:
            message = f"The local cloud does not have {self._get_action()}: {exc}"
            status, headers, body = self.serialized(ActionResult(EC2ClientError("InvalidAction", message)))
        except EC2ClientError as exc:
            status, headers, body = self.serialized(ActionResult(exc))
        for code, wanted in STATUS.items():
            if f"<Code>{code}</Code>" in str(body):
                status, headers["status"] = wanted, str(wanted)
        if self._get_action() != "RunInstances":
            self.controls.pass_request()
        if not self._get_action().startswith(("Describe", "Get")):
            self.reconciler.submit(Action.REFRESH)
        return status, headers, body

    def serialized(self, action_result: ActionResult) -> Any:
        """The answer's text, cut to the page that is asked for."""
        if not isinstance(action_result.result, Exception):
            action_result = ActionResult(self._paged(action_result.result))
        return super().serialized(action_result)

    def _check(self) -> None:
        """What EC2 refuses whatever the action."""
        filters = self._get_param("Filters", [])
        if len(filters) > MAX_FILTERS or any(
            len(each.get("Values", [])) > MAX_FILTER_VALUES for each in filters
        ):
            message = "The request uses too many filters or too many filter values."
            raise EC2ClientError("FilterLimitExceeded", message)
        self._check_tags()
        self._check_seen()
        if self._dry() and self._get_action() not in CHECKED_WHEN_DRY:
            raise DryRunClientError

    def _check_tags(self) -> None:
        specifications = self._get_param("TagSpecifications", [])
        for tags in [self._get_param("Tags", []), *(each.get("Tags", []) for each in specifications)]:
            if len(tags) > MAX_TAGS:
                raise TagLimitExceeded
            for tag in tags if self._get_action() != "DeleteTags" else ():
                _check_tag(tag["Key"], tag.get("Value", ""))
        tagged = self._get_param("Resources", []) if self._get_action() == "CreateTags" else []
        if len(tagged) > MAX_TAGGED:
            message = f"The request names {len(tagged)} resources; the maximum is {MAX_TAGGED}"
            raise EC2ClientError("InvalidParameterValue", message)
        instances = [resource for resource in tagged if resource.startswith("i-")]
        if instances:
            self.ec2_backend.get_multi_instances_by_id(instances)

    def _check_seen(self) -> None:
        """Eventual consistency: what was launched a moment ago may not be found."""
        named = [*self._get_param("InstanceIds", []), *self._get_param("Resources", [])]
        named.append(self._get_param("InstanceId"))
        if unseen := [each for each in named if each in self.controls.unseen]:
            raise InvalidInstanceIdError(unseen)


def _check_tag(key: str, value: str) -> None:
    if key.lower().startswith("aws:"):
        message = "Tag keys starting with 'aws:' are reserved for internal use"
    elif not 0 < len(key) <= MAX_KEY:
        message = f"Tag key exceeds the maximum length of {MAX_KEY} characters: '{key}'"
    elif len(value) > MAX_VALUE:
        message = f"Tag value exceeds the maximum length of {MAX_VALUE} characters: '{value}'"
    else:
        return
    raise EC2ClientError("InvalidParameterValue", message)
