"""A Hub on loopback: enough of its interface for a real push and pull by huggingface_hub, and nothing of it kept.

with LoopbackHub() as hub:
    ...  # HF_ENDPOINT=hub.url, HF_HUB_DISABLE_XET=1; hub.token may write, no other token may do anything
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

NAME = r"(?P<name>[^/]+/[^/]+)"


class Failure(Exception):
    """An answer other than 200; `fields` stand in its body, `commit` in its header."""

    def __init__(self, status, code="", message="", commit=None, **fields):
        self.status, self.content = status, json.dumps({"error": message or code} | fields).encode()
        self.headers = {"X-Error-Code": code, "X-Error-Message": message or code, "X-Repo-Commit": commit}


def git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path):
    return path.endswith(".safetensors")


class Repository:
    def __init__(self, private):
        self.private, self.branches, self.commits, self.log = private, {}, {}, []
        self.commit(
            "main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, "initial commit"
        )

    def commit(self, branch, files, message):
        sha = hashlib.sha1(f"{len(self.log)} {branch} {message}".encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        self.log.append((branch, sha, message))
        return sha

    def sha(self, revision):
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise Failure(404, "RevisionNotFound")
        return sha


class LoopbackHub:
    """
    `fails` names endpoints that answer 500; `before` has what is to happen before one is used; `calls` are those that
    were used, in order.
    """

    def __init__(self, token="hf_right"):
        self.token, self.repos, self.large = token, {}, {}
        self.fails, self.before, self.calls, self.lock = set(), {}, [], threading.Lock()

    def __enter__(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self):
                hub.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        url = urlsplit(request.path)
        status, headers, content = 200, {}, b""
        try:
            matches = (
                (call, re.fullmatch(path, url.path)) for ways, path, call in ENDPOINTS if request.command in ways
            )
            endpoint, found = next((match for match in matches if match[1]), (None, None))
            if endpoint is None:
                raise Failure(404, "EntryNotFound", f"no endpoint {request.command} {url.path}")
            with self.lock:
                self.calls.append(endpoint.__name__)
                self.before.get(endpoint.__name__, int)()
                if endpoint.__name__ in self.fails:
                    raise Failure(500, "", "the server broke down")
                token = (request.headers.get("Authorization") or "").removeprefix("Bearer ") or None
                if token not in (None, self.token):
                    raise Failure(401, "", "Invalid username or password.")
                arguments = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
                told = endpoint(self, token=token, body=body, query=parse_qs(url.query), **arguments)
            if isinstance(told, tuple):
                headers, content = told
            else:
                headers, content = {"Content-Type": "application/json"}, json.dumps(told).encode()
        except Failure as failure:
            status, headers, content = failure.status, failure.headers, failure.content
        request.send_response(status)
        for name, value in headers.items():
            if value:
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    def repository(self, name, token, writes=False):
        repo = self.repos.get(name)
        if repo is None or (repo.private and token is None):
            raise Failure(404 if token else 401, "RepoNotFound")
        if writes and token is None:
            raise Failure(401, "", "Invalid username or password.")
        return repo

    # --- endpoints

    def create(self, token, body, query):
        if token is None:
            raise Failure(401, "", "Invalid username or password.")
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repos:
            raise Failure(409, "", "You already created this model repo", url=f"{self.url}/{name}")
        self.repos[name] = Repository(asked.get("private", asked.get("visibility") == "private"))
        return {"url": f"{self.url}/{name}"}

    def validate_yaml(self, token, body, query):
        return {"errors": [], "warnings": []}

    def branch(self, token, body, query, name, branch):
        repo = self.repository(name, token, writes=True)
        if branch in repo.branches:
            raise Failure(409, "", "Reference already exists")
        repo.branches[branch] = repo.branches["main"]
        return {}

    def preupload(self, token, body, query, name, revision):
        repo = self.repository(name, token, writes=True)
        there = repo.commits[repo.sha(revision)]
        files = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            oid = None
            if path in there:
                oid = hashlib.sha256(there[path]).hexdigest() if is_large(path) else git_oid(there[path])
            mode = "lfs" if is_large(path) else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def lfs_batch(self, token, body, query, name):
        self.repository(name, token, writes=True)
        objects = []
        for asked in json.loads(body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.large:
                entry["actions"] = {"upload": {"href": f"{self.url}/lfs/{asked['oid']}", "header": {}}}
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    def put(self, token, body, query, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            raise Failure(400, "", "not what was announced")
        self.large[oid] = body
        return {}

    def commit(self, token, body, query, name, revision):
        repo = self.repository(name, token, writes=True)
        lines = [json.loads(line) for line in body.splitlines()]
        (header,) = (line["value"] for line in lines if line["key"] == "header")
        head = repo.sha(revision)
        if header.get("parentCommit", head) != head:
            raise Failure(412, "", "A commit has happened since.")
        files = dict(repo.commits[head])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(revision, files, header["summary"])
        return {"commitUrl": f"{self.url}/{name}/commit/{sha}", "commitOid": sha, "success": True, "hookOutput": ""}

    def info(self, token, body, query, name, revision="main"):
        repo = self.repository(name, token)
        sha = repo.sha(revision)
        siblings = [{"rfilename": path} for path in sorted(repo.commits[sha])]
        told = {"_id": name, "id": name, "modelId": name, "sha": sha, "private": repo.private, "siblings": siblings}
        return told | {"tags": [], "downloads": 0, "likes": 0, "disabled": False, "gated": False}

    def tree(self, token, body, query, name, revision, folder=""):
        repo = self.repository(name, token)
        files = repo.commits[repo.sha(revision)]
        start = folder.strip("/") + "/" if folder else ""
        found = [path for path in sorted(files) if path.startswith(start)]
        if not found:
            raise Failure(404, "EntryNotFound")
        return [{"type": "file", "path": path, "size": len(files[path]), "oid": git_oid(files[path])} for path in found]

    def resolve(self, token, body, query, name, revision, path):
        repo = self.repository(name, token)
        sha = repo.sha(revision)
        content = repo.commits[sha].get(path)
        if content is None:
            raise Failure(404, "EntryNotFound", commit=sha)
        etag = hashlib.sha256(content).hexdigest() if is_large(path) else git_oid(content)
        return {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Content-Type": "application/octet-stream"}, content


ENDPOINTS = [
    (("POST",), r"/api/repos/create", LoopbackHub.create),
    (("POST",), r"/api/validate-yaml", LoopbackHub.validate_yaml),
    (("POST",), rf"/api/models/{NAME}/branch/(?P<branch>[^/]+)", LoopbackHub.branch),
    (("POST",), rf"/api/models/{NAME}/preupload/(?P<revision>[^/]+)", LoopbackHub.preupload),
    (("POST",), rf"/{NAME}\.git/info/lfs/objects/batch", LoopbackHub.lfs_batch),
    (("PUT",), r"/lfs/(?P<oid>[0-9a-f]+)", LoopbackHub.put),
    (("POST",), rf"/api/models/{NAME}/commit/(?P<revision>[^/]+)", LoopbackHub.commit),
    (("GET",), rf"/api/models/{NAME}", LoopbackHub.info),
    (("GET",), rf"/api/models/{NAME}/revision/(?P<revision>[^/]+)", LoopbackHub.info),
    (("GET",), rf"/api/models/{NAME}/tree/(?P<revision>[^/]+)(?P<folder>/.*)?", LoopbackHub.tree),
    (("GET", "HEAD"), rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", LoopbackHub.resolve),
]
