-- The entries of a breakdown add up to the run's total.
WITH sums AS (
    SELECT
        run_id,
        file,
        total_credits,
        list_sum(list_transform(breakdown, lambda entry: entry.credits)) AS broken_down
    FROM stored_runs
    WHERE len(breakdown) > 0 AND total_credits IS NOT NULL
)
SELECT
    run_id || ' in ' || file || ': its breakdown is ' || coalesce(CAST(broken_down AS VARCHAR), 'unknown')
        || ' credits, and not ' || CAST(total_credits AS VARCHAR) AS offender,
    1 AS amount
FROM sums
WHERE broken_down IS DISTINCT FROM total_credits
ORDER BY run_id
