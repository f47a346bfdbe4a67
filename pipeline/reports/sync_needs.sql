-- The runs that sync must ask for by ID, of the runs in the view `changed` (a part of `runs`, or all): why tells which.
--
--   details   what a summary cannot give is wanted: with `credits`, where its credits cannot be told exactly without
--   found     a kind that cannot be listed: known from a breakdown, and not in the lake
--
-- Never a verify run, whose result reading can destroy; none that is gone; none that the API refused within a day.
WITH refused AS (
    SELECT run_id
    FROM dead_letters
    WHERE http_status = 404
        OR (
            http_status BETWEEN 400 AND 499
            AND http_status NOT IN (408, 409, 429)
            AND failed_at > CAST($now AS TIMESTAMPTZ) - INTERVAL 1 DAY
        )
),
lacking AS (
    SELECT
        run_id,
        kind,
        parse_run_id,
        total_credits - credits AS beyond
    FROM changed
    WHERE NOT is_detail
        AND deleted_at IS NULL
        AND kind IN (SELECT unnest($kinds))
        AND workspace_id IS NOT DISTINCT FROM $workspace
        AND (
            ($level = 'all' AND status IN (SELECT unnest($finished)))
            OR ($level = 'credits' AND kind = 'workflow_run' AND status IN (SELECT unnest($finished)))
            OR ($level = 'credits' AND kind <> 'workflow_run' AND breakdown IS NULL AND total_credits > credits)
        )
),
detailed AS (
    SELECT lacking.run_id
    FROM lacking
    LEFT JOIN runs AS parse ON parse.run_id = lacking.parse_run_id
    WHERE $level = 'all'
        OR lacking.kind = 'workflow_run'
        -- The parse run's own row tells the rest exactly.
        OR parse.credits IS DISTINCT FROM lacking.beyond
),
entries AS (
    SELECT unnest(breakdown) AS entry
    FROM changed
    WHERE len(breakdown) > 0 AND workspace_id IS NOT DISTINCT FROM $workspace
),
found AS (
    SELECT DISTINCT entry.id AS run_id
    FROM entries
    WHERE entry.object IN (SELECT unnest($unlisted))
        AND entry.object IN (SELECT unnest($kinds))
        AND NOT EXISTS (FROM runs WHERE runs.run_id = entry.id)
)
SELECT
    run_id,
    'details' AS why
FROM detailed
WHERE run_id NOT IN (FROM refused)
UNION ALL
SELECT
    run_id,
    'found'
FROM found
WHERE run_id NOT IN (FROM refused)
