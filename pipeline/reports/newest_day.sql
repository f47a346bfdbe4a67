-- The newest day that a run was created on, and the day on which a payload was last received.
SELECT
    max(created_on) AS newest_day,
    max(fetched_on) AS fetched_on
FROM run_sums
