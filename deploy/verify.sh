#!/usr/bin/env bash
# Prove on a real engine what docker-compose.yml and deploy/Dockerfile promise. Prints each check with its result, ends what it started, exits 1 if any check failed.
#
#   deploy/verify.sh                 with the images that the files name
#   STAND_INS=1 deploy/verify.sh     where no registry of images can be reached: a base by deploy/base-image.sh (root and debootstrap), the probe by the Go of this
#                                    machine, Redis and Prometheus from Debian's packages
#
#   COMPOSE          how compose is called; default the plugin, else docker-compose
#   BASE_IMAGE, GO_IMAGE, REDIS_IMAGE, JAEGER_IMAGE, PROMETHEUS_IMAGE, GRAFANA_IMAGE    other images than those named; with stand-ins, images that are there
#   JAEGER_BINARY    a binary of Jaeger v2 for a stand-in of its image
#   BUILD_FLAGS      more words for `docker build`, for example --build-arg PIP_INDEX_URL=...
#   WAIT             seconds that the containers may take to become healthy; default 240
#   KEEP_IMAGES      1 leaves the images that it built
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

STAND_INS=${STAND_INS:-}
WAIT=${WAIT:-240}
ANSWER_SECONDS=300
SERVICES=(gateway orchestrator limiter refiner)
QUESTION="What is the capital of France? Name one thing it is known for."
IMAGE=ensemble-grpc:verify

if [ -n "${COMPOSE:-}" ]; then
  read -ra compose <<<"$COMPOSE"
elif docker compose version >/dev/null 2>&1; then
  compose=(docker compose)
else
  compose=(docker-compose)
fi
docker info >/dev/null 2>&1 || { echo "verify.sh: no Docker engine answers" >&2; exit 2; }
"${compose[@]}" version >/dev/null 2>&1 || { echo "verify.sh: neither docker compose nor docker-compose is there" >&2; exit 2; }

work=$(mktemp -d)
started=
built=()
passed=0
failed=()
not_run=()

say() { printf '%s\n' "$*"; }

# check WHAT COMMAND...: one line for each check; the last lines of what a failed one printed.
check() {
  local what=$1 said
  shift
  if said=$("$@" 2>&1); then
    passed=$((passed + 1))
    say "ok       $what"
  else
    failed+=("$what")
    say "FAILED   $what"
    tail -n 15 <<<"$said" | sed 's/^/             /'
  fi
}

leave_out() {
  not_run+=("$1: $2")
  say "not run  $1: $2"
}

summary() {
  local one
  say ""
  say "$passed passed, ${#failed[@]} failed, ${#not_run[@]} not run"
  for one in "${failed[@]}"; do say "failed: $one"; done
  for one in "${not_run[@]}"; do say "not run: $one"; done
}

clean_up() {
  if [ -n "$started" ]; then
    "${compose[@]}" down --volumes --timeout 20 >/dev/null 2>&1 || say "the containers of $COMPOSE_PROJECT_NAME are not all gone"
  fi
  if [ "${KEEP_IMAGES:-}" != 1 ] && [ ${#built[@]} -gt 0 ]; then
    docker image rm "${built[@]}" >/dev/null 2>&1
  fi
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

have_image() { docker image inspect "$1" >/dev/null 2>&1; }

# The classic builder makes the stages above the one that is asked for as well, and wants their files.
build_stand_in() { touch -a "$work/context/grpc-health-probe" "$work/context/jaeger" && docker build --file deploy/stand-ins.Dockerfile --build-arg "BASE_IMAGE=$BASE_IMAGE" --target "$1" --tag "ensemble-stand-in-$1:verify" "$work/context"; }

# stand_in WHAT VARIABLE: build an image and name it in the variable.
stand_in() {
  check "a stand-in is built for the image of $1" build_stand_in "$1"
  built+=("ensemble-stand-in-$1:verify")
  export "$2=ensemble-stand-in-$1:verify"
}

# --- what it is built of -------------------------------------------------------------------------------------------------------------------------------------

if [ -n "$STAND_INS" ]; then
  mkdir "$work/context"
  export BASE_IMAGE=${BASE_IMAGE:-ensemble-base:bookworm}
  have_image "$BASE_IMAGE" || check "a base image is made by debootstrap ($BASE_IMAGE)" deploy/base-image.sh "$BASE_IMAGE"
  if [ -z "${GO_IMAGE:-}" ]; then
    probe_version=$(sed -n 's/^ARG PROBE_VERSION=//p' deploy/Dockerfile)
    check "grpc_health_probe $probe_version is built by the Go of this machine" \
      env GOBIN="$work/context" CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' "github.com/grpc-ecosystem/grpc-health-probe@$probe_version"
    stand_in probe GO_IMAGE
  fi
  [ -n "${REDIS_IMAGE:-}" ] || stand_in redis REDIS_IMAGE
  [ -n "${PROMETHEUS_IMAGE:-}" ] || stand_in prometheus PROMETHEUS_IMAGE
  if [ -z "${JAEGER_IMAGE:-}" ] && [ -n "${JAEGER_BINARY:-}" ]; then
    install "$JAEGER_BINARY" "$work/context/jaeger"
    stand_in jaeger JAEGER_IMAGE
  fi
fi

# --- the image -----------------------------------------------------------------------------------------------------------------------------------------------

build_image() {
  # shellcheck disable=SC2086 # BUILD_FLAGS is words
  docker build --file deploy/Dockerfile ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} ${GO_IMAGE:+--build-arg "GO_IMAGE=$GO_IMAGE"} \
    --build-arg VERSION=0.0.0+verify --build-arg REVISION=0123abc --build-arg SOURCE=https://git.example.com/ensemble ${BUILD_FLAGS:-} --tag "$IMAGE" .
}

in_image() { docker run --rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges "$IMAGE" "$@"; }

label_is() { [ "$(docker image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$1\"}}" "$IMAGE")" = "$2" ]; }

labels_are_set() {
  label_is version 0.0.0+verify && label_is revision 0123abc && label_is source https://git.example.com/ensemble && label_is licenses Apache-2.0 \
    && label_is title Ensemble && label_is description "Ask several language models at once over gRPC and get one better answer with a receipt."
}

# shellcheck disable=SC2016 # expanded in the container
no_compiler() { in_image sh -c 'for tool in cc c89 c99 gcc g++ c++ cpp clang as ld make cmake go rustc cargo; do if command -v "$tool"; then exit 1; fi; done'; }

no_cache() { [ -z "$(docker run --rm --network none --user 0 "$IMAGE" sh -c "find / -xdev \( -path '*/.cache' -o -path /build -o -name '*.whl' -path '*/build/*' -o -name 'http-v2' \) 2>/dev/null")" ]; }

image_is_not_root() { [ "$(docker image inspect --format '{{.Config.User}}' "$IMAGE")" = 10001:10001 ] && [ "$(in_image id -u)" = 10001 ]; }

# With a root that may be written to, where only owners and modes say who may.
nothing_is_its_own() { [ -z "$(docker run --rm --network none "$IMAGE" sh -c 'find /opt/ensemble /usr/local/bin /etc/ensemble -writable ! -type l 2>/dev/null')" ]; }

has_healthcheck() { [ "$(docker image inspect --format '{{len .Config.Healthcheck.Test}}' "$IMAGE")" -gt 0 ]; }

configuration_is_right() { docker run --rm --network none --read-only --volume "$PWD/deploy/ensemble.yaml:/etc/ensemble/ensemble.yaml:ro" "$IMAGE" ensemble check-config; }

key_by_file() {
  local said
  printf 'sk-verify-0123456789' > "$work/key"
  chmod 444 "$work/key"
  chmod 711 "$work"
  said=$(docker run --rm --network none --read-only --volume "$PWD/deploy/ensemble.yaml:/etc/ensemble/ensemble.yaml:ro" --volume "$work/key:/run/secrets/openrouter_api_key:ro" \
    --env 'ENSEMBLE__PROVIDERS__OPENROUTER__API_KEY={file: /run/secrets/openrouter_api_key}' \
    --env 'ENSEMBLE__MODELS__M={provider: openrouter, name: some/model}' --env 'ENSEMBLE__PROFILES__DEFAULT={strategy: single, members: [{model: m}]}' \
    "$IMAGE" ensemble check-config) || { echo "$said"; return 1; }
  ! grep -q sk-verify <<<"$said"
}

empty_key_is_missed() {
  local said
  : > "$work/no-key"
  chmod 444 "$work/no-key"
  said=$(docker run --rm --network none --read-only --volume "$PWD/deploy/ensemble.yaml:/etc/ensemble/ensemble.yaml:ro" --volume "$work/no-key:/run/secrets/openrouter_api_key:ro" \
    --env 'ENSEMBLE__PROVIDERS__OPENROUTER__API_KEY={file: /run/secrets/openrouter_api_key}' \
    --env 'ENSEMBLE__MODELS__M={provider: openrouter, name: some/model}' --env 'ENSEMBLE__PROFILES__DEFAULT={strategy: single, members: [{model: m}]}' \
    "$IMAGE" python -m services.orchestrator 2>&1) && return 1
  grep 'providers.openrouter.api_key' <<<"$said"
}

alone_without_network() {
  docker run --rm --network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges "$IMAGE" ensemble demo
}

say "engine $(docker version --format '{{.Server.Version}}'), compose $("${compose[@]}" version --short 2>/dev/null)"
check "the image is built (base ${BASE_IMAGE:-as named}, Go ${GO_IMAGE:-as named})" build_image
have_image "$IMAGE" || { say "without an image nothing else can be looked at"; exit 1; }
built+=("$IMAGE")
say "         $(docker image inspect --format '{{.Size}}' "$IMAGE" | awk '{printf "%.0f MB", $1 / 1e6}'), $(in_image python --version)"
check "its user is 10001, not root" image_is_not_root
check "it has a health check" has_healthcheck
check "it has its labels" labels_are_set
check "it has no compiler" no_compiler
check "it has no cache of pip and nothing of the build" no_cache
check "the user may write to none of the program's files" nothing_is_its_own
check "each service starts as far as its help, read-only and without a tmpfs" \
  in_image sh -c "for service in ${SERVICES[*]}; do python -m services.\$service --help >/dev/null || exit 1; done; ensemble --help >/dev/null"
check "deploy/ensemble.yaml is a right configuration" configuration_is_right
check "a provider's key is taken from a file, and not shown" key_by_file
check "an orchestrator with an empty key does not start, and says which" empty_key_is_missed
check "\`ensemble demo\` answers in one container without a network, read-only but for /tmp" alone_without_network

# --- the stack -----------------------------------------------------------------------------------------------------------------------------------------------

export COMPOSE_PROJECT_NAME=ensemble-verify COMPOSE_PROFILES=monitoring ENSEMBLE_VERSION=verify ENSEMBLE_SECRETS=$work/secrets LIMITER_REPLICAS=2
ENSEMBLE_PORT=$(docker run --rm --network host "$IMAGE" python -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])")
export ENSEMBLE_PORT
deploy/secrets.sh >/dev/null
password=$(cat "$work/secrets/redis_password")

container() { "${compose[@]}" ps -q "$1" | head -n 1; }
containers() { "${compose[@]}" ps -q; }
health() { docker inspect --format '{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}' "$1"; }
restarts() { docker inspect --format '{{.RestartCount}}' "$1"; }

all_healthy() {
  local end=$((SECONDS + WAIT)) one waiting
  while [ $SECONDS -lt $end ]; do
    waiting=
    for one in $(containers); do
      [ "$(health "$one")" = healthy ] || waiting+=" $(docker inspect --format '{{.Name}} {{.State.Status}}' "$one")"
    done
    [ -n "$waiting" ] || return 0
    sleep 1
  done
  echo "not healthy within $WAIT s:$waiting"
  return 1
}

confined() {
  local one wrong=
  for one in $(containers); do
    docker inspect --format '{{.Name}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{if .HostConfig.Memory}}memory{{end}} {{if .HostConfig.NanoCpus}}cpus{{end}} {{.HostConfig.RestartPolicy.Name}}' "$one" \
      | grep -Eq ' true \[ALL\] \[no-new-privileges(:true)?\] memory cpus unless-stopped$' || wrong+=" $(docker inspect --format '{{.Name}}' "$one")"
    # What the kernel says of process 1: no user or group but an ordinary one, no capability, no way to more of them.
    docker exec "$one" sh -c 'awk "/^(Uid|Gid):/ && \$2 + 0 == 0 && \$1 == \"Uid:\" {bad = 1} /^Cap(Eff|Prm|Bnd):/ && \$2 !~ /^0+\$/ {bad = 1} /^NoNewPrivs:/ && \$2 != 1 {bad = 1} END {exit bad}" /proc/1/status' || wrong+=" $one(process 1)"
    docker exec "$one" sh -c 'touch /verify /etc/verify /usr/bin/verify 2>/dev/null' && wrong+=" $one(writes to its root)"
  done
  [ -z "$wrong" ] || { echo "$wrong"; return 1; }
}

only_the_gateway_is_published() {
  local one wrong=
  for one in $(containers); do
    case "$one" in
      "$(container gateway)") [ "$(docker port "$one")" = "50051/tcp -> 127.0.0.1:$ENSEMBLE_PORT" ] || wrong+=" $(docker port "$one")" ;;
      *) [ -z "$(docker port "$one")" ] || wrong+=" $(docker inspect --format '{{.Name}}' "$one")" ;;
    esac
  done
  [ -z "$wrong" ] || { echo "$wrong"; return 1; }
}

probed() {
  docker exec "$(container "$1")" grpc_health_probe -addr="127.0.0.1:$2" -service="ensemble.v1.$3" && docker exec "$(container "$1")" grpc_health_probe -addr="127.0.0.1:$2"
}

answered() { python_in_gateway 'import json, sys; reply = json.load(sys.stdin); assert reply["answer"], reply; print(reply["answer"], "degraded:", reply["degraded"])'; }
python_in_gateway() { docker exec --interactive "$(container gateway)" python -c "$1"; }
ask() { docker exec "$(container gateway)" ensemble ask --json --timeout $ANSWER_SECONDS "$QUESTION"; }
ask_inside() { local reply; reply=$(ask) || { echo "$reply"; return 1; }; answered <<<"$reply"; }

# What a killed orchestrator held stays held until its leases end: up to the local model's timeout of 120 s and a moment. Until then exit code 3 says to come back.
ask_until_answered() {
  local end=$((SECONDS + WAIT)) reply code
  until reply=$(ask); do
    code=$?
    if [ $code -ne 3 ] || [ $SECONDS -ge $end ]; then
      echo "exit code $code"
      echo "$reply"
      return 1
    fi
    sleep 2
  done
  answered <<<"$reply"
}
ask_from_outside() {
  local reply
  reply=$(docker run --rm --network host "$IMAGE" ensemble ask --json --gateway "127.0.0.1:$ENSEMBLE_PORT" --timeout $ANSWER_SECONDS "$QUESTION") || { echo "$reply"; return 1; }
  answered <<<"$reply"
}

redis_cli() { docker exec --env "REDISCLI_AUTH=$password" "$(container redis)" redis-cli "$@"; }
redis_asks_for_the_password() { docker exec "$(container redis)" redis-cli ping 2>&1 | grep NOAUTH; }
permits_are_in_redis() { [ "$(redis_cli dbsize)" -gt 0 ]; }
# A container has a way out if one of its networks is not internal. Its routes do not tell: the engine closes internal networks by its packet filter.
has_way_out() {
  local network
  for network in $(docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}' "$(container "$1")"); do
    if [ "$(docker network inspect --format '{{.Internal}}' "$network")" = false ]; then return 0; fi
  done
  return 1
}
no_way_out() { ! has_way_out "$1"; }
limiter_alone_knows_the_store() {
  ! docker exec "$(container gateway)" python -c 'import socket; socket.getaddrinfo("redis", 6379)' 2>/dev/null && ! docker exec "$(container gateway)" ls /run/secrets 2>/dev/null | grep .
}

# shellcheck disable=SC2046 # one word for each container
no_secret_is_told() {
  docker inspect $(containers) > "$work/told" && "${compose[@]}" logs --no-color >> "$work/told" 2>&1
  local one
  for one in $(containers); do docker top "$one" >> "$work/told"; done
  if grep -q "$password" "$work/told"; then echo "the password of Redis"; return 1; fi
  if grep -q "capital of France" "$work/told"; then echo "the question"; return 1; fi
}

# As a crash: SIGKILL from outside. `docker kill` would count as a wish to have it stopped, after which nothing is restarted.
crash() {
  docker run --rm --pid host --network none --user 0 --cap-drop ALL --cap-add KILL "$IMAGE" python -c "import os, signal; os.kill($(docker inspect --format '{{.State.Pid}}' "$1"), signal.SIGKILL)"
}

restarted() {
  local end=$((SECONDS + WAIT))
  while [ $SECONDS -lt $end ]; do
    if [ "$(restarts "$1")" -gt "$2" ] && [ "$(health "$1")" = healthy ]; then return 0; fi
    sleep 1
  done
  echo "not restarted and healthy within $WAIT s"
  return 1
}

# Crash a container while a run is under way; its exit code has to be one of those given.
crash_in_a_run() {
  local name=$1 codes=$2 victim asking end one before code
  victim=$(container "$name")
  before=$(restarts "$victim")
  : > "$work/progress"
  docker exec "$(container gateway)" ensemble ask --timeout $ANSWER_SECONDS "$QUESTION" > "$work/answer" 2> "$work/progress" &
  asking=$!
  end=$((SECONDS + ANSWER_SECONDS))
  until grep -q 'asked smollm2' "$work/progress"; do
    [ $SECONDS -lt $end ] || { echo "the run did not begin"; return 1; }
    kill -0 $asking 2>/dev/null || { cat "$work/progress"; return 1; }
    sleep 0.1
  done
  crash "$victim" || return 1
  wait $asking
  code=$?
  case " $codes " in *" $code "*) ;; *) echo "exit code $code"; cat "$work/progress" "$work/answer"; return 1 ;; esac
  [ $code -ne 0 ] || [ -s "$work/answer" ] || { echo "no answer"; return 1; }
  restarted "$victim" "$before" || return 1
  all_healthy || return 1
  for one in $(containers); do
    case "$one" in "$victim") ;; *) [ "$(restarts "$one")" = "${restarts_before[$one]:-0}" ] || { echo "$(docker inspect --format '{{.Name}}' "$one") was restarted too"; return 1; } ;; esac
  done
}

note_restarts() { local one; for one in $(containers); do restarts_before[$one]=$(restarts "$one"); done; }

crash_and_ask() {
  note_restarts
  check "$1 is killed in the middle of a run: the run ends with $3, $1 is back, nobody else was restarted" crash_in_a_run "$1" "$2"
  say "         $(grep -iE 'degraded|unavailable|cannot|error' "$work/progress" | head -n 2 | tr '\n' ' ')"
  local from=$SECONDS
  check "a question is answered again, at the latest when the leases of the dead have ended" ask_until_answered
  say "         after $((SECONDS - from)) s"
}

several_of_each() { "${compose[@]}" up --detach --no-build --no-recreate --scale limiter=2 --scale refiner=2 --scale orchestrator=2 "${SERVICES[@]}" && all_healthy && [ "$("${compose[@]}" ps -q limiter | wc -l)" = 2 ]; }

all_drained() {
  local one code wrong=
  "${compose[@]}" stop "${SERVICES[@]}" || return 1
  for one in $("${compose[@]}" ps --all --quiet "${SERVICES[@]}"); do
    code=$(docker inspect --format '{{.State.ExitCode}}' "$one")
    [ "$code" = 0 ] || wrong+=" $(docker inspect --format '{{.Name}}' "$one"):$code"
  done
  [ -z "$wrong" ] || { echo "$wrong"; return 1; }
}

traces_arrive() {
  local end=$((SECONDS + 30))
  while [ $SECONDS -lt $end ]; do
    if docker exec "$(container gateway)" python -c 'import json, urllib.request as http
names = json.load(http.urlopen("http://jaeger:16686/api/services", timeout=5))["data"] or []
raise SystemExit(not {"ensemble-gateway", "ensemble-orchestrator", "ensemble-limiter", "ensemble-refiner"} <= set(names))'; then return 0; fi
    sleep 1
  done
  return 1
}

# Its first measurements come within its interval of 15 s.
prometheus_measures() {
  local end=$((SECONDS + 60)) said
  while [ $SECONDS -lt $end ]; do
    said=$(docker exec "$(container prometheus)" wget -q -O - "http://127.0.0.1:9090/api/v1/query?query=up%7Bjob%3D%22$1%22%7D")
    if grep -q '"1"\]' <<<"$said"; then return 0; fi
    sleep 1
  done
  echo "$said"
  return 1
}

grafana_has_its_sources() {
  docker exec "$(container grafana)" sh -c 'wget -q -O - --header "Authorization: Basic $(printf "admin:%s" "$(cat /run/secrets/grafana_password)" | base64 -w 0)" http://127.0.0.1:3000/api/datasources' \
    | grep '"uid":"prometheus"' | grep '"uid":"jaeger"'
}

declare -A restarts_before=()
wanted=("${SERVICES[@]}" redis model)
if [ -z "$STAND_INS" ] || [ -n "${JAEGER_IMAGE:-}" ]; then wanted+=(jaeger); fi

check "compose reads the file" "${compose[@]}" config --quiet
check "compose reads the file with deploy/pages.yml" "${compose[@]}" --file docker-compose.yml --file deploy/pages.yml config --quiet
started=1
check "it starts: ${wanted[*]}" "${compose[@]}" up --detach --no-build "${wanted[@]}"
check "all are healthy" all_healthy
if [ ${#failed[@]} -gt 0 ]; then
  for one in $(containers); do
    if [ "$(health "$one")" != healthy ]; then docker logs --tail 5 "$one" 2>&1 | sed 's/^/             /'; fi
  done
  summary
  exit 1
fi
for one in $(containers); do say "         $(docker inspect --format '{{.Name}} {{.Config.Image}}' "$one")"; done
check "each is confined: read-only, no capability, no new privileges, no root, memory and processor limited" confined
check "only the gateway is published, on 127.0.0.1" only_the_gateway_is_published
check "the probe in the gateway says SERVING" probed gateway 50051 GatewayService
check "the probe in the orchestrator says SERVING" probed orchestrator 50052 OrchestratorService
check "the probe in the limiter says SERVING" probed limiter 50053 LimiterService
check "the probe in the refiner says SERVING" probed refiner 50054 RefinerService
check "the limiter has no way out of its networks" no_way_out limiter
check "the model has no way out of its network" no_way_out model
check "the orchestrator has one, to hosted models" has_way_out orchestrator
check "the gateway has no secret and does not reach the store" limiter_alone_knows_the_store
check "Redis asks for its password" redis_asks_for_the_password
check "a question is answered, asked in the gateway's container" ask_inside
check "a question is answered, asked through the published port" ask_from_outside
check "the limiter's state is in Redis" permits_are_in_redis
crash_and_ask refiner "0" "an answer"
crash_and_ask limiter "0 3" "an answer or UNAVAILABLE"
crash_and_ask orchestrator "3" "UNAVAILABLE"
crash_and_ask redis "0 3" "an answer or UNAVAILABLE"
check "the limiter's state outlived Redis" permits_are_in_redis
check "two limiters, refiners and orchestrators are healthy" several_of_each
check "a question is answered by them" ask_inside
check "no log, argument or description of a container holds the password of Redis or the question" no_secret_is_told

case " ${wanted[*]} " in
  *" jaeger "*) check "the traces of all four are in Jaeger" traces_arrive ;;
  *) leave_out "traces in Jaeger" "its image cannot be had here; JAEGER_BINARY or JAEGER_IMAGE names another" ;;
esac
if [ -z "$STAND_INS" ] || [ -n "${PROMETHEUS_IMAGE:-}" ]; then
  check "Prometheus starts" "${compose[@]}" up --detach --no-build --no-deps prometheus
  check "it is healthy" all_healthy
  check "it is confined too" confined
  check "it measures itself" prometheus_measures prometheus
  case " ${wanted[*]} " in
    *" jaeger "*) check "it measures Jaeger" prometheus_measures jaeger ;;
    *) leave_out "Prometheus measuring Jaeger" "there is no Jaeger" ;;
  esac
else
  leave_out "Prometheus" "its image cannot be had here"
fi
if [ -z "$STAND_INS" ] || [ -n "${GRAFANA_IMAGE:-}" ]; then
  check "Grafana starts" "${compose[@]}" up --detach --no-build --no-deps grafana
  check "it is healthy" all_healthy
  check "it knows Prometheus and Jaeger" grafana_has_its_sources
else
  leave_out "Grafana" "its image cannot be had here; GRAFANA_IMAGE names another"
fi
check "told to stop, each service drains and exits with 0" all_drained

summary
[ ${#failed[@]} -eq 0 ]
