#!/usr/bin/env python3
"""Where the lab's alerts go: emulators of a mail server, of Slack's webhooks and of PagerDuty's Events API v2.

    receivers.py ADDRESS SMTP_PORT HTTPS_PORT CERTIFICATE     (CERTIFICATE.crt and .key)

They refuse what the real ones refuse (mail without TLS and login, a payload that is none, a routing key that cannot
be one), take any password, and keep the newest messages in memory. GET /received/{email,slack,pagerduty}?holding=TEXT
gives those that hold the text, as a JSON list.
"""

import json
import signal
import ssl
import sys
from collections import deque
from email import message_from_bytes, policy

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from werkzeug.serving import WSGIRequestHandler, run_simple
from werkzeug.wrappers import Request, Response

KEPT = 500
received: dict[str, deque] = {name: deque(maxlen=KEPT) for name in ("email", "slack", "pagerduty")}


class Mailbox:
    """Takes every mail."""

    async def handle_DATA(self, _server, session, envelope) -> str:  # noqa: N802  # the library's name
        mail = message_from_bytes(envelope.content, policy=policy.default)
        body = mail.get_body(("plain", "html"))
        received["email"].append(
            {
                "from": envelope.mail_from, "to": envelope.rcpt_tos, "subject": mail["Subject"],
                "body": body.get_content() if body else "", "tls": session.ssl is not None, "login": session.auth_data,
            }
        )  # fmt: skip
        return "250 OK"


def any_password(_server, _session, _envelope, _mechanism, data) -> AuthResult:
    """Any login that has a name and a password; only the name is kept."""
    if not (data.login and data.password):
        return AuthResult(success=False, handled=False)
    return AuthResult(success=True, auth_data=data.login.decode())


@Request.application
def application(request: Request) -> Response:
    parts = request.path.strip("/").split("/")
    if request.method == "GET" and parts[0] == "received" and len(parts) == 2 and parts[1] in received:
        wanted = request.args.get("holding", "")
        return answer([m for m in list(received[parts[1]]) if wanted in json.dumps(m)])
    if request.method == "POST" and parts[:2] == ["slack", "services"] and len(parts) == 5:
        return slack(request.get_json(force=True, silent=True))
    if request.method == "POST" and parts == ["pagerduty", "v2", "enqueue"]:
        return pagerduty(request.get_json(force=True, silent=True))
    return answer({"error": "not found"}, 404)


def slack(payload: object) -> Response:
    if not isinstance(payload, dict) or not (payload.get("text") or payload.get("attachments")):
        return Response("invalid_payload", 400)
    received["slack"].append(payload)
    return Response("ok")


def pagerduty(event: object) -> Response:
    """See "PagerDuty Events API v2: send an alert event". Answers 202, or 400 with what is wrong."""
    wrong = pagerduty_errors(event if isinstance(event, dict) else {})
    if wrong:
        return answer({"status": "invalid event", "message": "Event object is invalid", "errors": wrong}, 400)
    received["pagerduty"].append({k: v for k, v in event.items() if k != "routing_key"})
    return answer({"status": "success", "message": "Event processed", "dedup_key": event.get("dedup_key", "")}, 202)


def pagerduty_errors(event: dict) -> list[str]:
    errors = []
    if len(str(event.get("routing_key", ""))) != 32:
        errors.append("'routing_key' must be 32 characters")
    action, payload = event.get("event_action"), event.get("payload") or {}
    if action not in ("trigger", "acknowledge", "resolve"):
        errors.append("'event_action' is none of trigger, acknowledge, resolve")
    if action != "trigger" and not event.get("dedup_key"):
        errors.append("'dedup_key' is missing")
    if action == "trigger" and not (payload.get("summary") and payload.get("source")):
        errors.append("'payload.summary' or 'payload.source' is missing")
    if action == "trigger" and payload.get("severity") not in ("critical", "error", "warning", "info"):
        errors.append("'payload.severity' is none of critical, error, warning, info")
    return errors


def answer(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content), status, mimetype="application/json")


class Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        """A check asks twice a second."""


def main() -> None:
    address, smtp_port, https_port, certificate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{certificate}.crt", f"{certificate}.key")
    mail = Controller(
        Mailbox(), hostname=address, port=smtp_port, tls_context=context, require_starttls=True,
        authenticator=any_password, auth_required=True,
        auth_exclude_mechanism=["LOGIN"],  # its prompts are not those that mail clients expect
    )  # fmt: skip
    mail.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"mail {address}:{smtp_port}, Slack and PagerDuty https://{address}:{https_port}", flush=True)
    run_simple(address, https_port, application, threaded=True, ssl_context=context, request_handler=Quiet)


if __name__ == "__main__":
    main()
