# The lab's application: HTTP with a version, a health page and data whose
# format a newer version migrates and an older one then refuses.
import json, os, socket, sys, threading, time

app = json.loads(os.environ["APP"])


def open_data(folder="/var/lib/services/app"):
    os.makedirs(folder, exist_ok=True)
    path = folder + "/data"
    have = 0
    if os.path.exists(path):
        have = int(open(path).read().split()[0].lstrip("v"))
    if have > app["schema"]:
        sys.exit(f"{path} has format v{have}, this version knows v{app['schema']} only: refusing to start")
    if have < app["schema"]:
        with open(path + ".tmp", "w") as f:
            f.write(f"v{app['schema']}\nwritten by {app['version']}\n")
        os.rename(path + ".tmp", path)


def notify(text):
    addr = os.environ.get("NOTIFY_SOCKET", "")
    if addr:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.connect("\0" + addr[1:] if addr[0] == "@" else addr)
            s.send(text.encode())


def answer(conn):
    with conn:
        conn.settimeout(5)
        request = b""
        while b"\r\n\r\n" not in request:
            part = conn.recv(4096)
            if not part:
                return
            request += part
        path = request.split(b" ")[1]
        status, body = "200 OK", f"lab-app {app['version']}\n"
        if path == b"/healthz":
            body = "ok\n"
            if not app["healthy"]:
                status, body = "500 Internal Server Error", "database unreachable\n"
        conn.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())


def main():
    if app["startFail"]:
        sys.exit("cannot open database")
    if app["startHang"]:
        time.sleep(100000)
    time.sleep(app["startDelay"])
    open_data()
    server = socket.create_server(("", app["port"]), reuse_port=False)
    notify("READY=1")
    if app["dieAfter"] > 0:
        threading.Timer(app["dieAfter"], lambda: (print("out of memory", file=sys.stderr, flush=True), os._exit(1))).start()
    while True:
        conn, _ = server.accept()
        threading.Thread(target=answer, args=(conn,), daemon=True).start()


main()
