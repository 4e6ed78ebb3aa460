#!/bin/sh
# Fetch the cockpit's front-end libraries from npm at pinned versions into engine/cockpit/static/vendor,
# with their licences and a manifest of checksums that a test verifies. Needs npm; run it only to change a version.
set -eu
cd "$(dirname "$0")/.."
target=engine/cockpit/static/vendor
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() { # fetch NAME VERSION DIRECTORY
    (cd "$work" && npm pack --silent "$1@$2" > packed && mkdir -p "$3" && tar xzf "$(tail -n 1 packed)" -C "$3" --strip-components=1)
}
fetch preact 10.27.2 preact
fetch htm 3.1.1 htm
fetch @preact/signals-core 1.12.1 signals-core
fetch @preact/signals 2.3.2 signals
fetch uplot 1.6.32 uplot

mkdir -p "$target/licences"
rm -f "$target"/*.js "$target"/*.css "$target"/licences/*
# There is no bundler and the content security policy forbids inline import maps: bare specifiers become paths.
plain() {
    sed -e 's#from"preact/hooks"#from"./hooks.js"#g' -e 's#from"preact"#from"./preact.js"#g' \
        -e 's#from"@preact/signals-core"#from"./signals-core.js"#g' -e '/^\/\/# sourceMappingURL=/d' "$1" > "$target/$2"
}
plain "$work/preact/dist/preact.module.js" preact.js
plain "$work/preact/hooks/dist/hooks.module.js" hooks.js
plain "$work/htm/dist/htm.module.js" htm.js
plain "$work/signals-core/dist/signals-core.module.js" signals-core.js
plain "$work/signals/dist/signals.module.js" signals.js
plain "$work/uplot/dist/uPlot.esm.js" uplot.js
cp "$work/uplot/dist/uPlot.min.css" "$target/uplot.css"
for name in preact htm signals-core signals uplot; do
    cp "$work/$name/LICENSE" "$target/licences/$name.txt"
done
cat > "$target/VERSIONS" <<'END'
preact 10.27.2 MIT
htm 3.1.1 Apache-2.0
@preact/signals-core 1.12.1 MIT
@preact/signals 2.3.2 MIT
uplot 1.6.32 MIT
END
(cd "$target" && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum > SHA256SUMS)
echo "vendored into $target:" && cat "$target/VERSIONS"
