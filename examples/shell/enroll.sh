#!/usr/bin/env bash
# Sends one command and waits for what comes of it: ./enroll.sh enroll|unenroll|replace STUDENT [COURSE ...]
#
# Prints the result event. Exit code 0: applied; 1: rejected; 2: not sent; 3: sent, and no event within 10 seconds.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/redis.sh" "${ENROLLMENT_BROKER_URL:-redis://localhost:6379/0}"
stream=${ENROLLMENT_EVENTS_STREAM:-enrollment.events}

usage() { echo "Usage: $0 enroll|unenroll|replace STUDENT [COURSE ...]" >&2; exit 2; }
[[ $# -ge 2 && $1 =~ ^(enroll|unenroll|replace)$ ]] || usage
for number in "${@:2}"; do [[ $number =~ ^[1-9][0-9]*$ ]] || usage; done
courses=$(IFS=,; echo "${*:3}")

# The time in microseconds: which of two commands of the same moment counts is up to their ids, and those are random.
now() {
  local time=${EPOCHREALTIME-} # of bash 5; with a comma in some locales
  if [[ $time =~ ^([0-9]+)[.,]([0-9]{6})$ ]]; then
    TZ=UTC0 printf '%(%Y-%m-%dT%H:%M:%S)T.%sZ' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
    return
  fi
  time=$(date -u +%Y-%m-%dT%H:%M:%S.%6NZ) # of GNU
  if ! [[ $time =~ \.[0-9]{6}Z$ ]]; then
    time=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    echo "This machine tells whole seconds only: send one command about a student per second, or their order is chance." >&2
  fi
  echo "$time"
}

# The command's id and time are made once. To send it again after a failure, send the same ones: it takes effect once.
id=${COMMAND_ID:-$(cat /proc/sys/kernel/random/uuid 2> /dev/null || uuidgen | tr A-Z a-z)}
issued_at=${ISSUED_AT:-$(now)}

body='[[],{"student_id":'$2',"course_ids":['$courses'],"issued_at":"'$issued_at'","source":"examples:shell"},{}]'
entry='{"body":"'$(printf %s "$body" | base64 | tr -d '\n')'","content-encoding":"utf-8"'
entry+=',"content-type":"application/json","headers":{"task":"enrollment.'$1'.v1","id":"'$id'"}'
entry+=',"properties":{"body_encoding":"base64","correlation_id":"'$id'","delivery_tag":"'$id'"'
entry+=',"delivery_info":{"exchange":"","routing_key":"enrollment"},"delivery_mode":2}}'

# Where the stream ends now: the event comes after it.
newest=$(redis XREVRANGE "$stream" + - COUNT 1) || { echo "Nothing was sent." >&2; exit 2; }
position=${newest%%$'\n'*}
position=${position:-0-0}

answer=$(redis LPUSH enrollment "$entry") || true
if ! [[ $answer =~ ^[0-9]+$ ]]; then
  echo "Redis may not have the message: ${answer:-no answer}. Send the same command again:" >&2
  echo "  COMMAND_ID=$id ISSUED_AT=$issued_at $0 $*" >&2
  exit 2
fi

deadline=$((SECONDS + 10))
while ((SECONDS < deadline)); do
  while IFS= read -r line; do
    [[ $line =~ ^[0-9]+-[0-9]+$ ]] && position=$line # the id of an entry; its field and its event follow
    [[ $line == *'"id":"'"$id"'"'* ]] || continue
    echo "$line"
    [[ $line == *'"type":"enrollment.applied.v1"'* ]] && exit 0 || exit 1
  done < <(redis XREAD COUNT 100 BLOCK 1000 STREAMS "$stream" "$position")
done
echo "Sent as $id; no event came within 10 seconds. Is a worker running?" >&2
exit 3
