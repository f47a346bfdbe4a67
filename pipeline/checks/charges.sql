-- The charges of an entry of a breakdown add up to its credits.
WITH entries AS (
    SELECT
        run_id,
        file,
        unnest(breakdown) AS entry
    FROM stored_runs
    WHERE len(breakdown) > 0
),
sums AS (
    SELECT
        run_id,
        file,
        entry.id AS resource_id,
        entry.credits AS credits,
        list_sum(list_transform(entry.charges, lambda charge: charge.credits)) AS charged
    FROM entries
    WHERE len(entry.charges) > 0
)
SELECT
    run_id || ' in ' || file || ': the charges of ' || coalesce(resource_id, 'an entry without ID') || ' are '
        || coalesce(CAST(charged AS VARCHAR), 'unknown') || ' credits, and not '
        || coalesce(CAST(credits AS VARCHAR), 'unknown') AS offender,
    1 AS amount
FROM sums
WHERE charged IS DISTINCT FROM credits
ORDER BY run_id
