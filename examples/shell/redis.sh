# `redis COMMAND [ARGUMENT ...]` prints each string of the answer on a line of its own, as redis-cli does in a script.
# Where there is no redis-cli, bash speaks the protocol itself. Source this file with an address:
# redis[s]://[[user]:password@]host[:port][/database]; special characters of the password are percent-encoded.

if ! [[ $1 =~ ^redis(s?)://(([^:@/]*):([^@/]*)@)?([^:/@]+)(:([0-9]+))?(/([0-9]+))?/?$ ]]; then
  echo "This is no address of a Redis, such as redis://:password@host:6379/0" >&2
  exit 2
fi
_redis_tls=${BASH_REMATCH[1]:+--tls} _redis_user=${BASH_REMATCH[3]:-default}
_redis_password=$(printf %b "${BASH_REMATCH[4]//%/\\x}")
_redis_host=${BASH_REMATCH[5]} _redis_port=${BASH_REMATCH[7]:-6379} _redis_database=${BASH_REMATCH[9]:-0}

redis() {
  if command -v redis-cli > /dev/null; then
    # The password goes through the environment: every user of the machine may read a command line.
    REDISCLI_AUTH=$_redis_password redis-cli ${_redis_tls:+"$_redis_tls"} ${_redis_password:+--user "$_redis_user"} \
      -h "$_redis_host" -p "$_redis_port" -n "$_redis_database" --no-auth-warning "$@"
  else
    _redis_alone "$@"
  fi
}

_redis_alone() (
  LC_ALL=C # lengths count bytes
  [[ -z $_redis_tls ]] || { echo "For rediss:// redis-cli is needed" >&2; exit 2; }
  exec 3<> "/dev/tcp/$_redis_host/$_redis_port" || exit 1
  if [[ -n $_redis_password ]]; then
    _redis_say AUTH "$_redis_user" "$_redis_password"
    _redis_hear > /dev/null
  fi
  _redis_say SELECT "$_redis_database"
  _redis_hear > /dev/null
  _redis_say "$@"
  _redis_hear
)

_redis_say() {
  printf '*%d\r\n' $# >&3
  local word
  for word; do printf '$%d\r\n%s\r\n' ${#word} "$word" >&3; done
}

_redis_hear() {
  local line text size
  IFS= read -r line <&3 || { echo "Redis hung up" >&2; exit 1; }
  line=${line%$'\r'}
  case $line in
    [+:]*) echo "${line:1}" ;;
    -*) echo "${line:1}" >&2; exit 1 ;;
    '$-1' | '*-1') echo ;;
    '$'*)
      size=${line:1}
      IFS= LC_ALL=C read -r -N $((size + 2)) text <&3
      printf '%s\n' "${text:0:size}"
      ;;
    '*'*) for ((size = ${line:1}; size > 0; size--)); do _redis_hear; done ;;
  esac
}
