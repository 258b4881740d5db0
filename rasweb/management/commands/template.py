"""``manage.py template``: templates and their distribution."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from typing import Any

from providers_app.models import Provider
from rasweb.orders import OrderCommand, Unfinished, add_wait, find, find_all, table, wait_until, who
from rasweb.refusals import Refusal
from templates_app import creation, distribution, maintenance, recreation, verification, workingcopy
from templates_app.models import CloneMethod, DistributionTarget, RecreateRun, Template
from templates_app.states import Phase, RunPhase, TemplatePhase
from templates_app.status import template_status

VERIFY_SECONDS = 60.0


class Command(OrderCommand):
    help = "Create, distribute, verify, maintain, recreate and delete templates."

    def add_verbs(self, verb: Callable[..., ArgumentParser]) -> None:
        self._add_create(verb("create", self.create, "Make a template from a VM and distribute it."))
        verb("status", self.status, "Show one template, or all.").add_argument("name", nargs="?")
        self._add_providers(
            verb("add-provider", self.add_provider, "Add providers to the distribution list.")
        )
        remove = self._add_providers(
            verb("remove-provider", self.remove_provider, "Remove providers from it.")
        )
        remove.add_argument("--delete-guests", action="store_true", help="Delete the guest VMs there too.")
        self._add_providers(verb("retry", self.retry, "Retry failed providers; all without names."), "*")
        self._add_providers(verb("cancel", self.cancel, "Stop the work on providers."))
        verb("verify", self.verify, "Read every image again and compare digests.").add_argument("name")
        self._add_maintenance(
            verb("maintenance", self.maintenance, "Enter maintenance, shut its VM down, leave.")
        )
        self._add_recreate(verb("recreate", self.recreate, "Recreate the outdated guest VMs."))
        delete = verb("delete", self.delete, "Delete a template and its images everywhere.")
        delete.add_argument("name")
        add_wait(delete)

    def create(self, asked: Namespace) -> Any:
        provider, colon, vm = asked.source.partition(":")
        if not colon:
            raise Refusal("The source is of the form PROVIDER:VM.", "BAD_INPUT")
        new = creation.NewTemplate(
            name=asked.name,
            source_provider=find(Provider, provider),
            source_vm=vm,
            clone_method=asked.clone,
            targets=find_all(Provider, asked.target),
            max_concurrent=asked.concurrent,
        )
        return self._answer(asked, creation.create(new, who()))

    def status(self, asked: Namespace) -> Any:
        if asked.name:
            return template_status(find(Template, asked.name))
        return [template_status(template) for template in Template.objects.all()]

    def add_provider(self, asked: Namespace) -> Any:
        template = find(Template, asked.name)
        distribution.add_providers(template, find_all(Provider, asked.providers), who())
        return self._answer(asked, template)

    def remove_provider(self, asked: Namespace) -> Any:
        template = find(Template, asked.name)
        targets = _targets(template, asked.providers)
        providers = [target.provider for target in targets]
        distribution.remove_providers(template, providers, who(), delete_guests=asked.delete_guests)
        return self._answer(asked, template)

    def retry(self, asked: Namespace) -> Any:
        template = find(Template, asked.name)
        if asked.providers:
            for target in _targets(template, asked.providers):
                distribution.retry(target, who())
        else:
            distribution.retry_failed(template, who())
        return self._answer(asked, template)

    def cancel(self, asked: Namespace) -> Any:
        template = find(Template, asked.name)
        for target in _targets(template, asked.providers):
            distribution.cancel(target, who())
        return self._answer(asked, template)

    def verify(self, asked: Namespace) -> Any:
        rows = verification.verify(find(Template, asked.name))
        return rows if all(row["ok"] for row in rows) else Unfinished(rows)

    def maintenance(self, asked: Namespace) -> Any:
        template = find(Template, asked.name)
        if asked.way == "shut-down":
            return self._shut_down(asked, template)
        if asked.way == "enter":
            maintenance.enter(template, who())
            done = {TemplatePhase.MAINTENANCE}
        else:
            if asked.new_version == asked.discard:
                raise Refusal("Choose --new-version or --discard.", "BAD_INPUT")
            maintenance.leave(
                template, maintenance.NEW_VERSION if asked.new_version else maintenance.DISCARD, who()
            )
            done = {TemplatePhase.READY}
        if asked.wait:
            moving = {TemplatePhase.ENTERING, TemplatePhase.EXITING}
            wait_until(lambda: Template.objects.get(pk=template.pk).phase not in moving, asked.timeout)
        answer = template_status(Template.objects.get(pk=template.pk))
        reached = Template.objects.get(pk=template.pk).phase in done
        return answer if reached or not asked.wait else Unfinished(answer)

    def _shut_down(self, asked: Namespace, template: Template) -> Any:
        workingcopy.shut_down(template, who(), force=asked.power_off)
        if asked.wait:
            wait_until(lambda: workingcopy.order_of(_again(template)) is None, asked.timeout)
        fresh = _again(template)
        answer = template_status(fresh)
        return Unfinished(answer) if asked.wait and fresh.error_code else answer

    def recreate(self, asked: Namespace) -> Any:
        template = find(Template, asked.name)
        if asked.later:
            recreation.defer(template, who())
            return template_status(template)
        run = recreation.begin(template, who(), only_responding=asked.only_responding)
        wait_until(lambda: _fresh(run).phase != RunPhase.VERIFYING, VERIFY_SECONDS)
        if _fresh(run).phase == RunPhase.BLOCKED:
            raise _blocked(_fresh(run))
        if asked.wait:
            wait_until(lambda: _fresh(run).phase != RunPhase.RUNNING, asked.timeout)
        answer = template_status(Template.objects.get(pk=template.pk))
        fine = _fresh(run).phase in (RunPhase.RUNNING, RunPhase.COMPLETED)
        return answer if fine else Unfinished(answer)

    def delete(self, asked: Namespace) -> Any:
        template = find(Template, asked.name)
        distribution.delete(template, who())
        if asked.wait:
            wait_until(
                lambda: not Template.objects.filter(pk=template.pk).exists() or _settled(template),
                asked.timeout,
            )
        left = Template.objects.filter(pk=template.pk).first()
        if left is None:
            return f"{asked.name} was deleted."
        return Unfinished(template_status(left)) if asked.wait else template_status(left)

    def plain(self, answer: Any) -> None:
        """Templates as a table; one template followed by its targets."""
        if isinstance(answer, dict) and "targets" in answer:
            super().plain([_summary(answer)])
            if answer["error"]:
                self.stdout.write(f"{answer['error']['text']} {answer['error']['action']}".rstrip())
            self.stdout.write("")
            for line in table(
                [{**row, "error": (row["error"] or {}).get("text")} for row in answer["targets"]]
            ):
                self.stdout.write(line)
        elif isinstance(answer, list) and answer and "targets" in answer[0]:
            super().plain([_summary(row) for row in answer])
        else:
            super().plain(answer)

    def _answer(self, asked: Namespace, template: Template) -> Any:
        if not asked.wait:
            return template_status(Template.objects.get(pk=template.pk))
        wait_until(lambda: _settled(template), asked.timeout)
        answer = template_status(Template.objects.get(pk=template.pk))
        return answer if answer["distribution"] in ("OK", "—") else Unfinished(answer)

    def _add_create(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--source", required=True, metavar="PROVIDER:VM")
        parser.add_argument("--clone", choices=CloneMethod.values, default=CloneMethod.FULL)
        parser.add_argument("--target", action="append", default=[], metavar="PROVIDER")
        parser.add_argument(
            "--concurrent", type=int, default=4, metavar="N", help="Providers copied to at once."
        )
        add_wait(parser)

    def _add_providers(self, parser: ArgumentParser, nargs: str = "+") -> ArgumentParser:
        parser.add_argument("name")
        parser.add_argument("providers", nargs=nargs, metavar="PROVIDER")
        add_wait(parser)
        return parser

    def _add_maintenance(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("way", choices=("enter", "shut-down", "leave"))
        parser.add_argument("--new-version", action="store_true", help="Seal the changes as a new version.")
        parser.add_argument("--discard", action="store_true", help="Delete the working copy.")
        parser.add_argument("--power-off", action="store_true", help="Do not wait for the VM's own system.")
        add_wait(parser)

    def _add_recreate(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--later", action="store_true", help="Keep the guest VMs as they are for now.")
        parser.add_argument(
            "--only-responding", action="store_true", help="Leave out providers that do not respond."
        )
        add_wait(parser)


def _settled(template: Template) -> bool:
    """Nothing moves any more, or only when a provider comes back."""
    fresh = Template.objects.filter(pk=template.pk).first()
    if fresh is None:
        return True
    if fresh.phase == TemplatePhase.CREATING and fresh.source_provider.available:
        return False
    unsettled = fresh.targets.exclude(phase__in=[Phase.INSTALLED, Phase.FAILED]).select_related("provider")
    if fresh.phase == TemplatePhase.CREATE_FAILED:
        return True
    return not any(target.provider.available or target.at_work for target in unsettled)


def _targets(template: Template, names: Iterable[str]) -> list[DistributionTarget]:
    found = {row.provider.name: row for row in template.targets.select_related("provider", "template")}
    for name in names:
        if name not in found:
            raise Refusal(f"{template} is not distributed to “{name}”.", "MISSING")
    return [found[name] for name in names]


def _again(template: Template) -> Template:
    return Template.objects.get(pk=template.pk)


def _fresh(run: RecreateRun) -> RecreateRun:
    return RecreateRun.objects.get(pk=run.pk)


def _blocked(run: RecreateRun) -> Refusal:
    names = ", ".join(run.silent)
    return Refusal(
        f"Not responding: {names}. No guest VM was recreated.",
        "PROVIDER_NOT_RESPONDING",
        "Check the provider status and try again, or recreate later.",
    )


def _summary(answer: dict[str, Any]) -> dict[str, Any]:
    shown = ("template", "status", "distribution", "version", "guests", "outdated_guests")
    ready = f"{answer['counts']['ok']} of {answer['counts']['total']}"
    return {**{key: answer[key] for key in shown}, "providers_ok": ready}
