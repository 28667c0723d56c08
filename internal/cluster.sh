#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two `fromage serve` on one bucket of an S3 server and one NATS server, all on this machine, until Ctrl-C. With ONCE=1 it publishes pictures to one server,
# waits for the other to have the version, and ends.
set -eu

dir=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

mkdir -p "$dir/s3/versions" "$dir/meta" "$dir/pictures"
export AWS_ACCESS_KEY_ID=fromage AWS_SECRET_ACCESS_KEY=of-the-demo AWS_REGION=us-east-1
bin/versitygw --quiet --access "$AWS_ACCESS_KEY_ID" --secret "$AWS_SECRET_ACCESS_KEY" --port 127.0.0.1:7071 posix --sidecar "$dir/meta" "$dir/s3" >"$dir/s3.log" 2>&1 &
pids="$pids $!"
go build -o "$dir/natsd" ./internal/natsd
"$dir/natsd" 127.0.0.1:4223 &
pids="$pids $!"
sleep 1
bucket='s3://versions?endpoint=http://127.0.0.1:7071&use_path_style=true'
FROMAGE_TOKEN=$(bin/fromage admin token demo --scopes heads,gallery,bundle,admin --tokens "$dir/tokens")
export FROMAGE_TOKEN
no_open=${ONCE:+--no-open}
for port in 8081 8082; do
	# The first puts the embedded model there before the second looks.
	bin/fromage serve $no_open --listen 127.0.0.1:$port --data "$bucket" --nats nats://127.0.0.1:4223 --tokens "$dir/tokens" --log "$dir/$port.log" &
	pids="$pids $!"
	until curl -fs http://127.0.0.1:$port/healthz >/dev/null 2>&1; do sleep 0.2; done
done
for i in 1 2 3; do cp docs/page.png "$dir/pictures/$i.png"; done
echo "publishing three pictures to the server at 8081"
bin/fromage push gallery add --device cpu --to http://127.0.0.1:8081 --note "the cluster demo" --root "$dir/pictures" "$dir/pictures"
until curl -fs http://127.0.0.1:8082/sync/version | grep -q 'the cluster demo'; do sleep 0.05; done
echo "the server at 8082 has them: $(curl -fs http://127.0.0.1:8082/healthz)"
[ -n "${ONCE:-}" ] && exit 0
echo "pages: http://127.0.0.1:8081/ and http://127.0.0.1:8082/; publish more with FROMAGE_TOKEN=$FROMAGE_TOKEN bin/fromage push … --to http://127.0.0.1:8081; Ctrl-C ends all"
wait
